from __future__ import annotations

from headrace import storage
from headrace.evaluate import watcher
from headrace.evaluate.config import EvaluateConfig

FAST = watcher.suites(EvaluateConfig(max_tokens=100), None)
BOTH = watcher.suites(EvaluateConfig(max_tokens=100, benchmark_items=5), "abcd")


def checkpoint(run, step, content="x"):
    folder = run / "train" / "checkpoints" / f"step-{step:08d}"
    storage.write_json(folder / "manifest.json", {"content": content})
    return folder


def score(run, folder, suite=FAST[0]):
    digest = storage.file_entry(folder, folder / "manifest.json")["sha256"]
    storage.write_json(watcher.result_path(run, folder.name, suite.name), {"checkpoint_manifest_sha256": digest, **suite.settings})


def owed(run, suites=FAST):
    return [(folder.name, suite.name) for folder, suite in watcher.owed(run, suites)]


def test_every_committed_checkpoint_is_owed_a_score_newest_first(tmp_path):
    folders = [checkpoint(tmp_path, step) for step in (0, 10, 20)]
    (tmp_path / "train" / "checkpoints" / "step-00000030").mkdir()  # not committed
    assert owed(tmp_path) == [(folder.name, "fast") for folder in folders[::-1]]
    score(tmp_path, folders[1])
    assert owed(tmp_path) == [(folders[2].name, "fast"), (folders[0].name, "fast")]


def test_a_score_of_another_checkpoint_or_amount_of_text_does_not_count(tmp_path):
    folder = checkpoint(tmp_path, 10)
    score(tmp_path, folder)
    assert owed(tmp_path) == []
    assert owed(tmp_path, watcher.suites(EvaluateConfig(max_tokens=200), None)) == [(folder.name, "fast")]
    checkpoint(tmp_path, 10, "trained again")
    assert owed(tmp_path) == [(folder.name, "fast")]


def test_evaluation_sets_are_owed_where_there_are_some_after_the_held_out_text(tmp_path):
    first, second = (checkpoint(tmp_path, step) for step in (10, 20))
    score(tmp_path, first)
    assert owed(tmp_path, BOTH) == [(second.name, "fast"), (second.name, "benchmarks"), (first.name, "benchmarks")]
    score(tmp_path, second, BOTH[1])
    assert owed(tmp_path, BOTH) == [(second.name, "fast"), (first.name, "benchmarks")]
    # Found again in another corpus, or asked for more items: scored again.
    for other in (watcher.suites(EvaluateConfig(benchmark_items=5), "ef01"), watcher.suites(EvaluateConfig(), "abcd")):
        assert (second.name, "benchmarks") in owed(tmp_path, other)
    assert [suite.name for suite in watcher.suites(EvaluateConfig(benchmark_items=None), "abcd")] == ["fast"]


def test_what_cannot_be_scored_is_not_tried_for_ever_but_on_request(tmp_path):
    folder = checkpoint(tmp_path, 10)
    score(tmp_path, folder)
    watcher.record_failure(tmp_path, folder.name, "benchmarks", "no memory", attempts=4)
    assert owed(tmp_path, BOTH) == []
    watcher.forget_failures(tmp_path)
    assert owed(tmp_path, BOTH) == [(folder.name, "benchmarks")]


def test_pins_are_set_and_released(tmp_path):
    watcher.pin(tmp_path, "step-00000010", "job")
    assert [path.name for path in (tmp_path / "train" / "pins").iterdir()] == ["step-00000010.job"]
    watcher.unpin(tmp_path, "step-00000010", "job")
    watcher.unpin(tmp_path, "step-00000010", "job")
    assert not list((tmp_path / "train" / "pins").iterdir())
