from __future__ import annotations

from headrace import storage
from headrace.evaluate import watcher


def checkpoint(run, step, content="x"):
    folder = run / "train" / "checkpoints" / f"step-{step:08d}"
    storage.write_json(folder / "manifest.json", {"content": content})
    return folder


def score(run, folder, max_tokens=100):
    digest = storage.file_entry(folder, folder / "manifest.json")["sha256"]
    storage.write_json(watcher.result_path(run, folder.name, "fast"), {"checkpoint_manifest_sha256": digest, "max_tokens": max_tokens})


def test_every_committed_checkpoint_is_owed_a_score_newest_first(tmp_path):
    folders = [checkpoint(tmp_path, step) for step in (0, 10, 20)]
    (tmp_path / "train" / "checkpoints" / "step-00000030").mkdir()  # not committed
    assert watcher.owed(tmp_path, 100) == folders[::-1]
    score(tmp_path, folders[1])
    assert watcher.owed(tmp_path, 100) == [folders[2], folders[0]]


def test_a_score_of_another_checkpoint_or_amount_of_text_does_not_count(tmp_path):
    folder = checkpoint(tmp_path, 10)
    score(tmp_path, folder)
    assert watcher.owed(tmp_path, 100) == []
    assert watcher.owed(tmp_path, 200) == [folder]
    checkpoint(tmp_path, 10, "trained again")
    assert watcher.owed(tmp_path, 100) == [folder]


def test_what_cannot_be_scored_is_not_tried_for_ever_but_on_request(tmp_path):
    folder = checkpoint(tmp_path, 10)
    watcher.record_failure(tmp_path, folder.name, "no memory", attempts=4)
    assert watcher.owed(tmp_path, 100) == []
    watcher.forget_failures(tmp_path)
    assert watcher.owed(tmp_path, 100) == [folder]


def test_pins_are_set_and_released(tmp_path):
    watcher.pin(tmp_path, "step-00000010", "job")
    assert [path.name for path in (tmp_path / "train" / "pins").iterdir()] == ["step-00000010.job"]
    watcher.unpin(tmp_path, "step-00000010", "job")
    watcher.unpin(tmp_path, "step-00000010", "job")
    assert not list((tmp_path / "train" / "pins").iterdir())
