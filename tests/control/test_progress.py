from __future__ import annotations

import json

from headrace.control.progress import RunProgress, Tail, describe


def add(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        for value in values:
            handle.write(json.dumps(value) + "\n")


def test_a_tail_gives_each_whole_line_once(tmp_path):
    path = tmp_path / "lines"
    tail = Tail(path)
    assert tail.lines() == []
    add(path, {"n": 1}, {"n": 2})
    with path.open("a") as handle:
        handle.write('{"n": 3')
    assert [line["n"] for line in tail.lines()] == [1, 2]
    with path.open("a") as handle:
        handle.write("}\n")
    assert [line["n"] for line in tail.lines()] == [3]
    assert tail.lines() == []


def test_a_file_that_a_resume_cut_is_read_anew(tmp_path):
    path = tmp_path / "lines"
    tail = Tail(path)
    add(path, {"n": 1}, {"n": 2})
    tail.lines()
    path.write_text('{"n": 1}\n')
    assert [line["n"] for line in tail.lines()] == [1]


def test_events_are_told_in_words():
    finished = {"stage": "dedup", "event": "finished", "rows_in": 7467, "rows_out": 7000, "seconds": 2.34}
    assert describe(finished) == "dedup: 7,467 documents in, 7,000 out, 2.3 s"
    assert describe({"stage": "ingest", "event": "skipped"}) == "ingest: already done"
    assert describe({"stage": "train", "event": "failed", "message": "out of luck"}) == "train: failed: out of luck"


def test_only_what_is_new_is_told_on_stderr(tmp_path, capsys):
    add(tmp_path / "events.jsonl", {"stage": "ingest", "event": "started"})
    with RunProgress(tmp_path, 10) as progress:
        add(tmp_path / "events.jsonl", {"stage": "filters", "event": "started"})
        progress.show()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "filters: started" in captured.err
    assert "ingest" not in captured.err
