import gzip
import itertools
import json
from collections import Counter

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.ingest import read_jsonl as module
from headrace.ingest.read_jsonl import read_jsonl
from headrace.ingest.record import Record, Rejected


def read(path, **options):
    return list(read_jsonl(str(path), options.pop("text_field", "text"), **options))


def reasons(items):
    return Counter(item.reason for item in items if isinstance(item, Rejected))


def texts(items):
    return [item.text for item in items if isinstance(item, Record)]


BAD_LINES = {
    b'{"text": "caf\xe9"}': "bad_utf8",
    b'{"text": "\\ud83d alone"}': "bad_utf8",
    b'{"text": "\\uDC00 alone"}': "bad_utf8",
    b'{"text": "unfinished': "bad_json",
    b'{"text": "\\ud83d\\ude00" "x"}': "bad_json",
    b'{"text": "x", "score": NaN}': "bad_json",
    b"not json at all": "bad_json",
    b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}": "bad_json",
    b'["text"]': "not_object",
    b"17": "not_object",
    b"{}": "missing_text",
    b'{"Text": "x"}': "missing_text",
    b'{"text": null}': "missing_text",
    b'{"text": ["x"]}': "missing_text",
    b'{"text": ""}': "empty_text",
    b'{"text": " \\n\\u00a0"}': "empty_text",
    b'{"text": "a\\u0000b"}': "nul_bytes",
    b'{"text": "a\x00b"}': "nul_bytes",
    b"\0" * 40: "nul_bytes",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:30].decode("latin-1"))
def test_a_bad_line_is_rejected_with_its_reason_and_place_between_good_ones(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    items = read(tmp_path / "a.jsonl")
    assert texts(items) == ["before", "after"]
    (rejected,) = [item for item in items if isinstance(item, Rejected)]
    assert rejected == Rejected(19, BAD_LINES[line], line[:200])


def test_all_bad_lines_are_counted_exactly(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(list(BAD_LINES) * 3))
    assert reasons(read(tmp_path / "a.jsonl")) == Counter(list(BAD_LINES.values()) * 3)


def test_a_line_of_50_mb_is_rejected_and_the_next_one_read(tmp_path):
    long = b'{"text": "' + b"x" * 50_000_000 + b'"}'
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "before"}\n' + long + b'\n{"text": "after"}\n')
    before, rejected, after = read(tmp_path / "a.jsonl")
    assert rejected == Rejected(19, "too_long", long[:200])
    assert [before.text, after.text] == ["before", "after"]
    assert after.offset == 19 + len(long) + 1


def test_fields_of_a_record(tmp_path):
    lines = [
        {"id": "a", "text": "x", "lang": "en", "url": "http://e", "b": [1, {"z": 1, "a": 2}], "a": None},
        {"id": 7, "text": "x", "lang": 3},
        {"id": True, "text": "x"},
        {"id": "", "text": "x", "url": ""},
        {"text": "x", "meta": {"inner": 1, "a": 2}, "a": 3},
        {"text": "x", "meta": "words"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = read(tmp_path / "a.jsonl")
    assert [(item.id, item.lang, item.url, item.meta) for item in items] == [
        ("a", "en", "http://e", '{"a":null,"b":[1,{"a":2,"z":1}]}'),
        ("7", None, None, '{"lang":3}'),
        (None, None, None, '{"id":true}'),
        (None, None, None, '{"id":""}'),
        (None, None, None, '{"a":3,"inner":1}'),
        (None, None, None, '{"meta":"words"}'),
    ]


def test_another_text_field_and_the_last_of_two_equal_keys(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "x", "text": "y", "body": "z"}')
    (item,) = read(tmp_path / "a.jsonl", text_field="body")
    assert (item.text, item.meta) == ("z", '{"text":"y"}')


def test_a_byte_order_mark_blank_lines_and_line_separators_are_no_matter(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('\ufeff{"text": "a\u2028b\x85c"}\r\n\n  \n{"text": "d"}'.encode())
    assert texts(read(tmp_path / "a.jsonl")) == ["a\u2028b\x85c", "d"]


@pytest.mark.parametrize("name, content", [("a.jsonl", b""), ("a.jsonl.gz", b""), ("a.jsonl.gz", gzip.compress(b"")), ("a.jsonl.zst", b"")])
def test_an_empty_file_is_one_rejection(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (rejected,) = read(tmp_path / name)
    assert (rejected.reason, rejected.whole_file) == ("empty_text", True)


def test_what_is_not_what_its_name_says_is_one_rejection(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000))
    (rejected,) = read(tmp_path / "a.jsonl")
    assert (rejected.reason, rejected.whole_file) == ("not_the_format", True)
    assert b"gzip" in rejected.first_bytes
    assert read(tmp_path / "a.jsonl", start=0, stop=50) == [rejected]
    assert read(tmp_path / "a.jsonl", start=50, stop=100) == []


@pytest.mark.parametrize("suffix, pack", [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_records_before_a_truncation_stand_and_it_is_one_rejection(tmp_path, suffix, pack):
    lines = [json.dumps({"text": f"{number} {number * 7919 % 104729} words"}).encode() + b"\n" for number in range(50_000)]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(b"".join(lines))[:-5])
    *records, rejected = read(path)
    assert rejected.reason == "truncated_stream"
    assert rejected.whole_file
    assert [record.text for record in records] == [json.loads(line)["text"] for line in lines[: len(records)]]
    assert len(records) > 40_000


def test_a_bomb_of_records_is_cut_off(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "%s"}\n' % (b"x" * 1000) * 30_000))
    *records, rejected = read(path)
    assert rejected.reason == "bomb"
    assert 0 < len(records) < 30_000


LINES = st.one_of(st.text(max_size=30).map(lambda text: json.dumps({"text": "t" + text})), st.sampled_from(["", "bad", "x" * 300]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(LINES, max_size=30),
    st.lists(st.floats(0, 1), max_size=6),
    st.booleans(),
)
def test_any_cut_into_byte_ranges_gives_the_same_records(tmp_path_factory, lines, cuts, ended):
    path = tmp_path_factory.mktemp("ranges") / "a.jsonl"
    content = "\n".join(lines).encode() + (b"\n" if ended else b"")
    path.write_bytes(content)
    edges = sorted({0, len(content), *(int(cut * len(content)) for cut in cuts)})
    parts = [item for start, stop in itertools.pairwise(edges) for item in read(path, start=start, stop=stop)]
    assert parts == ([] if not content.strip() else read(path))


def test_a_range_within_an_overlong_line_gives_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_RECORD", 100)
    (tmp_path / "a.jsonl").write_bytes(b"x" * 1000 + b'\n{"text": "after"}\n')
    assert [item.reason for item in read(tmp_path / "a.jsonl", start=0, stop=300)] == ["too_long"]
    assert read(tmp_path / "a.jsonl", start=300, stop=900) == []
    assert texts(read(tmp_path / "a.jsonl", start=900, stop=1019)) == ["after"]
