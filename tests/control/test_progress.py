from __future__ import annotations

import io
import json

from rich.console import Console

from headrace.control.progress import RunProgress, describe


def add(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        for value in values:
            handle.write(json.dumps(value) + "\n")


def test_events_are_told_in_words():
    finished = {"stage": "dedup", "event": "finished", "rows_in": 7467, "rows_out": 7000, "seconds": 2.34}
    assert describe(finished) == "dedup: 7,467 documents in, 7,000 out, 2.3 s"
    assert describe({"stage": "ingest", "event": "skipped"}) == "ingest: already done"
    assert describe({"stage": "train", "event": "failed", "message": "out of luck"}) == "train: failed: out of luck"
    saved = {"stage": "train", "event": "checkpoint", "step": 1200, "bytes": 2_500_000, "stall_s": 0.25, "waited_s": 0.15, "written_s": 2.0}
    assert describe(saved) == "train: checkpoint of step 1,200, 2.5 MB; training stood still for 0.4 s"
    rewind = {"stage": "train", "event": "incident", "kind": "rewind", "message": "step 7: back to step 5"}
    assert describe(rewind) == "train: rewind: step 7: back to step 5"
    scored = {"stage": "evaluate", "event": "evaluation", "checkpoint": "step-00000010", "suite": "fast", "status": "scored"}
    assert describe({**scored, "bits_per_byte": 2.3456}) == "evaluate: step-00000010, fast: 2.346 bits per byte"
    assert describe({**scored, "status": "failed", "reason": "it broke"}) == "evaluate: step-00000010, fast: no result: it broke"


def test_only_what_is_new_is_told_on_stderr(tmp_path, capsys):
    add(tmp_path / "events.jsonl", {"stage": "ingest", "event": "started"})
    with RunProgress(tmp_path, 10) as progress:
        add(tmp_path / "events.jsonl", {"stage": "filters", "event": "started"})
        progress.show()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "filters: started" in captured.err
    assert "ingest" not in captured.err


PROGRESS = {"done": 3, "total": 40, "unit": "units", "elapsed_s": 6.0, "left_s": 75.0, "documents_per_s": 500.0, "bytes_per_s": 3_100_000}
STEP = {"step": 5, "loss": 4.5, "tokens": 500, "tokens_per_s": 50.0}


def test_a_line_every_ten_seconds_tells_how_far_each_stage_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("headrace.control.progress.EVERY_S", 0.0)
    with RunProgress(tmp_path, 10) as progress:
        add(tmp_path / "events.jsonl", {"stage": "ingest", "event": "progress", "phase": "read", **PROGRESS})
        add(tmp_path / "train" / "metrics.jsonl", STEP)
        progress.show()
        told = capsys.readouterr().err
        progress.show()
        assert capsys.readouterr().err == "", "nothing is told twice"
    assert "ingest/read: 3 of 40 units, 3.1 MB/s, 500 documents/s, 1 min 15 s left" in told
    assert "train: 5 of 10 steps, loss 4.500, 500 tokens, 50 tokens/s" in told


def test_within_ten_seconds_only_the_latest_counts(tmp_path, capsys):
    with RunProgress(tmp_path, 10) as progress:
        for done in (3, 4):
            add(tmp_path / "events.jsonl", {"stage": "ingest", "event": "progress", "phase": "read", **PROGRESS, "done": done})
            progress.show()
        assert capsys.readouterr().err == ""
        progress._shown -= 11
        progress.show()
    assert "ingest/read: 4 of 40 units" in capsys.readouterr().err


def test_on_a_terminal_each_stage_at_work_has_a_bar(tmp_path, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        "headrace.control.progress.Console", lambda **given: Console(file=screen, force_terminal=True, width=160, highlight=False)
    )
    with RunProgress(tmp_path, 10) as progress:
        add(tmp_path / "events.jsonl", {"stage": "ingest", "event": "progress", "phase": "read", **PROGRESS})
        add(tmp_path / "train" / "metrics.jsonl", STEP)
        progress.show()
        assert {task.description: (task.completed, task.total) for task in progress._bar.tasks} == {
            "ingest/read": (3, 40),
            "train, loss 4.500": (5, 10),
        }
        shown = {task.description: task.fields["about"] for task in progress._bar.tasks}
        assert shown["ingest/read"].startswith("3.1 MB/s, 500 documents/s, 1 min 1")
        assert shown["train, loss 4.500"] == "50 tokens/s"
        add(tmp_path / "events.jsonl", {"stage": "ingest", "event": "finished", "rows_in": 1, "rows_out": 1, "seconds": 1.0})
        progress.show()
        assert [task.description for task in progress._bar.tasks] == ["train, loss 4.500"]
    assert "3/40" in screen.getvalue()
