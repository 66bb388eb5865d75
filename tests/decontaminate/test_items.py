from __future__ import annotations

import gzip
import json

import pytest
import zstandard

from headrace.config import ConfigError
from headrace.decontaminate.items import read_benchmark
from headrace.decontaminate.presets import Benchmark

RECORD = {
    "id": "q1",
    "subject": "biology",
    "question": "What is a cell?",
    "choices": ["a unit of life", "a room", "both"],
    "answer": {"letter": "C", "text": "It is both."},
    "score": 3,
    "hint": None,
}


def items(path, fields=None, n=5):
    return list(read_benchmark(Benchmark(name="set", path=path, fields=fields), n))


def test_all_strings_of_a_record_but_its_id_and_single_words(tmp_path, write_set):
    (item,) = items(write_set(tmp_path / "set.jsonl", [RECORD]))
    assert (item.benchmark, item.id, item.row) == ("set", "q1", 0)
    assert item.text == "What is a cell?\na unit of life\na room\nboth\nIt is both."
    assert " ".join(item.words) == "what is a cell a unit of life a room both it is both"


def test_alternatives_each_follow_what_is_before_them(tmp_path, write_set):
    (item,) = items(write_set(tmp_path / "set.jsonl", [RECORD]))
    pairs = [" ".join(pair) for pair in item.further]
    # Question and first choice, last choice and answer stand side by side already. Four words of either side reach over the border.
    assert pairs == [
        "what is a cell a room",
        "what is a cell both",
        "a unit of life it is both",
        "a room it is both",
    ]


def test_named_fields_and_fields_that_are_alternatives(tmp_path, write_set):
    path = write_set(tmp_path / "set.jsonl", [{"goal": "Open a jar", "sol1": "twist the lid", "sol2": "break the glass", "n": {"a": 7.5}}])
    (item,) = items(path, ["goal", ["sol1", "sol2"], "n.a"])
    assert item.text == "Open a jar\ntwist the lid\nbreak the glass\n7.5"
    assert [" ".join(pair) for pair in item.further] == ["open a jar break the glass"]
    (item,) = items(path, ["sol2"])
    assert item.words == ["break", "the", "glass"]
    assert not item.further


def test_items_without_an_id_of_their_own_are_named_by_their_row(tmp_path, write_set):
    records = [{"id": 7, "q": "one two"}, {"q": "three four"}, {"id": "x", "q": "five six"}, {"id": "x", "q": "seven eight"}, {"id": ""}]
    assert [item.id for item in items(write_set(tmp_path / "set.jsonl", records))] == ["7", "set#1", "set#2", "set#3", "set#4"]


@pytest.mark.parametrize("suffix, compress", [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)])
def test_plain_and_compressed_files(tmp_path, suffix, compress):
    path = tmp_path / f"set.jsonl{suffix}"
    path.write_bytes(compress((json.dumps(RECORD) + "\n\n" + json.dumps({"q": "last one"})).encode()))
    assert [item.id for item in items(str(path))] == ["q1", "set#1"]


@pytest.mark.parametrize(
    "content, fields, says",
    [
        (b'{"q": "a b"}\n{broken\n', None, r"byte 13: no JSON"),
        (b'["a b"]\n', None, "byte 0: list, expected an object"),
        (b"", None, "empty_text"),
        (b"\n\n", None, "no items in it"),
        (b'{"q": "a b"}\n', ["question"], r"no field 'question'; there is: q\."),
        (b'{"q": "a b"}\n', ["q.text"], r"no field 'q\.text'; there is: str"),
        (b'{"q": "\xff"}\n', None, "byte 0"),
    ],
)
def test_an_item_that_cannot_be_read_ends_it(tmp_path, content, fields, says):
    (tmp_path / "set.jsonl").write_bytes(content)
    with pytest.raises(ConfigError, match=r"decontaminate\.benchmarks\.set: .*" + says):
        items(str(tmp_path / "set.jsonl"), fields)


def test_a_truncated_file_ends_it(tmp_path):
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(RECORD).encode() * 100)[:-20])
    with pytest.raises(ConfigError, match="every item has to be readable"):
        items(str(path))
