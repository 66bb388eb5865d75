from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from headrace import pipeline, storage
from headrace.artifact import QualityGateError
from headrace.config import validate
from headrace.control.exits import GATE, exit_code
from headrace.dedup.alarms import Alarms, by_source
from headrace.dedup.levels import LEVEL_OF
from headrace.inspection import rejected
from headrace.run import RunConfig

WORDS = [f"word{number}" for number in range(4000)]


def record(source, rows_in, rejected, **counters):
    return {"source": source, "rows_in": rows_in, "rejected": rejected, "counters": counters}


def test_a_row_a_source():
    records = [
        record("web", 10, {"exact_duplicate": 2, "short_after_sentence_dedup": 1}, sentence_cut_chars=100, sentence_cuts=3),
        record("books", 5, {}, sentence_cut_chars=0, token_cut_chars=7),
        record("web", 10, {"near_duplicate": 2}, sentence_cut_chars=11),
        record("empty", 0, {}),
    ]
    nothing = {"removed": {}, "removed_share": 0.0}
    assert by_source(records, LEVEL_OF, {"web": 4}) == [
        {"source": "books", "rows_in": 5, "rows_out": 5, **nothing, "cut_chars": {"sentence": 0, "token": 7}, "largest_group": 1},
        {"source": "empty", "rows_in": 0, "rows_out": 0, **nothing, "cut_chars": {}, "largest_group": 0},
        {
            "source": "web",
            "rows_in": 20,
            "rows_out": 15,
            "removed": {"document": {"exact_duplicate": 2, "near_duplicate": 2}, "sentence": {"short_after_sentence_dedup": 1}},
            "removed_share": 0.25,
            "cut_chars": {"sentence": 111},
            "largest_group": 4,
        },
    ]
    assert {row["largest_group"] for row in by_source(records, LEVEL_OF, None)} == {None}


@pytest.mark.parametrize("wrong", [{"largest_group": 0}, {"removed_share": 0}, {"removed_share": 1.5}, {"removed": 0.5}])
def test_bounds_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValidationError):
        Alarms.model_validate(wrong)


@pytest.fixture
def run_config(tmp_path):
    """Source a: six copies of a text among ten; source b: ten texts, one of which repeats a's, too."""

    def text(number):
        return " ".join(WORDS[100 * number : 100 * number + 100])

    texts = {"a": [text(0)] * 6 + [text(number) for number in range(1, 5)], "b": [text(number) for number in [0, *range(10, 19)]]}
    for source, found in texts.items():
        (tmp_path / f"{source}.jsonl").write_text(
            "".join(json.dumps({"id": f"{source}{n}", "text": t}) + "\n" for n, t in enumerate(found))
        )

    def config(**alarms):
        values = {
            "out": str(tmp_path / "run"),
            "sources": [{"name": name, "kind": "prose", "path": str(tmp_path / f"{name}.jsonl"), "filters": []} for name in texts],
            "dedup": {"alarms": alarms},
            "split": {"validation": 0.2},
            "tokens": {"vocab_size": 320, "sequence_length": 8},
        }
        return validate(RunConfig, values, "test")

    return config


def events(config, stage):
    return [line["event"] for line in storage.read_lines(config.folder / "events.jsonl") if line["stage"] == stage]


def test_a_bound_that_is_passed_ends_the_run_as_a_quality_gate_and_leaves_everything_to_look_at(run_config):
    strict = run_config(largest_group=6, removed_share=0.4)
    for _ in range(2):  # the same command again says the same, and does nothing twice
        with pytest.raises(QualityGateError) as error:
            pipeline.curate(strict, "local")
    assert exit_code(error.value) == GATE
    message = str(error.value)
    assert "a: a group of 7 documents that repeat one another; dedup.alarms.largest_group is 6" in message
    assert "a: deduplication removed 50.0% of 10 documents; dedup.alarms.removed_share is 0.4" in message
    assert "b: a group of 7 documents" in message  # of a source that has one of the group's documents
    assert "b: deduplication" not in message
    assert "headrace inspect RUN --stage dedup" in message
    assert "widen the bound and run the same command again" in message
    assert events(strict, "dedup") == ["started", "finished", "skipped"]
    assert events(strict, "split") == []
    rows = rejected(strict.folder, "dedup", None, 20)
    assert len(rows) == 6
    assert {row["details"].partition(",")[0] for row in rows} == {"repeats=a0"}
    # A wider bound goes on from there.
    wide = run_config(largest_group=7, removed_share=0.5)
    pipeline.curate(wide, "local")
    assert events(wide, "dedup") == ["started", "finished", "skipped", "skipped"]
    # And a bound that comes after the run is done is held against what is there.
    with pytest.raises(QualityGateError):
        pipeline.finished(strict)
    assert pipeline.finished(wide) is not None
    assert pipeline.finished(run_config()) is not None
