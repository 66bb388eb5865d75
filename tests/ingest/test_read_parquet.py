import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.ingest import read_parquet as module
from headrace.ingest.read_parquet import read_parquet, row_group_bytes
from headrace.ingest.record import Record, Rejected


def write(path, table, **options):
    pq.write_table(table, path, write_page_checksum=True, **options)
    return str(path)


def rows(number):
    return pa.table({"text": pa.array([f"row {row}" for row in range(number)], pa.string()), "id": pa.array(range(number), pa.int64())})


def test_rows_are_documents_with_their_other_columns(tmp_path):
    table = pa.table(
        {
            "id": ["a", "b"],
            "text": ["x", "y"],
            "lang": ["en", None],
            "when": [datetime.date(2024, 1, 2), None],
            "price": pa.array([decimal.Decimal("1.50"), None]),
            "raw": [b"\xff", None],
            "tags": [["q"], None],
        }
    )
    first, second = read_parquet(write(tmp_path / "a.parquet", table), "text")
    assert first == Record("a", 0, "x", "en", None, '{"price":"1.50","raw":"\\\\xff","tags":["q"],"when":"2024-01-02"}')
    assert (second.id, json.loads(second.meta)) == ("b", {"price": None, "raw": None, "tags": None, "when": None})


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_every_type_of_string_is_text(tmp_path, kind):
    path = write(tmp_path / "a.parquet", pa.table({"text": pa.array(["x", "y"]).cast(kind)}))
    assert [item.text for item in read_parquet(path, "text")] == ["x", "y"]


def test_row_groups_partition_the_rows_and_keep_their_numbers(tmp_path):
    path = write(tmp_path / "a.parquet", rows(1000), row_group_size=130)
    whole = list(read_parquet(path, "text"))
    assert [(item.offset, item.text) for item in whole] == [(row, f"row {row}") for row in range(1000)]
    assert [item for start, stop in ((0, 3), (3, 4), (4, 8)) for item in read_parquet(path, "text", start, stop)] == whole
    assert len(row_group_bytes(path)) == 8


def test_bad_rows_are_rejected_with_their_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_RECORD", 50)
    text = pa.array([b"good", b"caf\xe9", None, b"", b"a\0b", b"x" * 51, b"last"], pa.binary())
    other = pa.array([b"o"] * 6 + [b"\xff"], pa.binary()).view(pa.string())
    path = write(tmp_path / "a.parquet", pa.table({"text": text, "other": other}))
    items = list(read_parquet(path, "text"))
    assert [item.text for item in items if isinstance(item, Record)] == ["good"]
    found = [(item.offset, item.reason) for item in items if isinstance(item, Rejected)]
    expected = ["bad_utf8", "missing_text", "empty_text", "nul_bytes", "too_long", "bad_utf8"]
    assert found == list(enumerate(expected, 1))


@pytest.mark.parametrize("columns", [{"body": ["x"], "url": ["u"]}, {"text": [1], "url": ["u"]}])
def test_a_file_without_text_is_one_rejection_that_names_its_columns(tmp_path, columns):
    (item,) = read_parquet(write(tmp_path / "a.parquet", pa.table(columns)), "text")
    assert (item.reason, item.whole_file) == ("missing_text", True)
    assert all(name.encode() in item.first_bytes for name in columns)


def damaged(path, kind):
    content = bytearray(path.read_bytes())
    if kind == "empty":
        return b""
    if kind == "cut":
        return bytes(content[:-20])
    if kind == "other":
        return b"text, not parquet"
    if kind == "footer":
        content[-400:-8] = bytes(392)
    if kind == "page":
        content[content.index(b"row 150")] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    "kind, reason, read",
    [
        ("empty", "empty_text", 0),
        ("cut", "truncated_stream", 0),
        ("other", "not_the_format", 0),
        ("footer", "corrupt_stream", 0),
        ("page", "corrupt_stream", 200),  # the row group of rows 100 to 199 is lost, the others are read
    ],
)
def test_a_damaged_file_is_one_rejection(tmp_path, kind, reason, read):
    path = tmp_path / "a.parquet"
    write(path, rows(300), row_group_size=100, compression="none", use_dictionary=False)
    path.write_bytes(damaged(path, kind))
    items = list(read_parquet(str(path), "text"))
    assert [(item.reason, item.whole_file) for item in items if isinstance(item, Rejected)] == [(reason, True)]
    assert sum(isinstance(item, Record) for item in items) == read
    assert row_group_bytes(str(path)) is None or kind == "page"


def test_a_table_of_no_rows_is_one_rejection(tmp_path):
    (item,) = read_parquet(write(tmp_path / "a.parquet", rows(0)), "text")
    assert item.reason == "empty_text"


def test_a_dictionary_that_stands_for_too_much_is_a_bomb(tmp_path):
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), ["x" * 1_000_000])  # 2 GB out of some 100 KB
    items = list(read_parquet(write(tmp_path / "a.parquet", pa.table({"text": text})), "text"))
    assert items[-1].reason == "bomb"
    assert sum(len(item.text) for item in items[:-1]) <= 200e6
