from __future__ import annotations

import json

from headrace.observe.tail import Tail


def add(path, *values):
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


def test_from_the_end_only_what_is_new(tmp_path):
    path = tmp_path / "lines"
    add(path, {"n": 1})
    tail = Tail(path, from_end=True)
    add(path, {"n": 2})
    assert [line["n"] for line in tail.lines()] == [2]
