import gzip
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from headrace.artifact import read_table
from headrace.ingest import documents as module
from headrace.ingest.documents import FILES, ingest_unit
from headrace.ingest.listing import plan_units
from headrace.ingest.source import Source
from headrace.schema import DOCUMENTS, QUARANTINE


def ingest(folder, out, unit_bytes=None, **fields):
    """Every unit of a folder's files: (results, documents, quarantine, files)."""
    units = plan_units([Source(name="web", kind="web", path=str(folder), **fields)], unit_bytes)
    kinds = ("documents", "quarantine", "files")
    results = [ingest_unit(unit, out) for unit in units]
    tables = [pa.concat_tables(read_table(out / kind / f"{unit['id']}.parquet") for unit in units) for kind in kinds]
    return results, *tables


def jsonl(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def test_every_kind_of_bad_input_is_counted_and_the_rest_is_read(raw, tmp_path):
    (raw / "bad.jsonl").write_bytes(
        b'{"text": "one"}\n{"text": "caf\xe9"}\n{"text": \n[1]\n{"body": "x"}\n{"text": " "}\n{"text": "a\\u0000"}\n{"text": "'
        + b"x" * (17 << 20)
        + b'"}\n{"text": "two"}\n'
    )
    (raw / "bomb.jsonl.gz").write_bytes(gzip.compress(bytes(50 << 20)))
    (raw / "corrupt.jsonl.gz").write_bytes(gzip.compress(jsonl("three"))[:-8] + b"8 wrong.")
    (raw / "cut.jsonl.zst").write_bytes(zstandard.compress(jsonl("four"))[:-3])
    (raw / "empty.jsonl").touch()
    (raw / "good.jsonl").write_bytes(jsonl("five", "six"))
    (raw / "gone.jsonl").symlink_to("nowhere")
    (raw / "named.parquet").write_bytes(jsonl("no table"))
    (raw / "picture.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    results, documents, quarantine, files = ingest(raw, tmp_path / "out", 100_000_000)
    expected = {
        "bad.jsonl": ["bad_utf8", "bad_json", "not_object", "missing_text", "empty_text", "nul_bytes", "too_long"],
        "bomb.jsonl.gz": ["bomb"],
        "corrupt.jsonl.gz": ["corrupt_stream"],
        "cut.jsonl.zst": ["truncated_stream"],
        "empty.jsonl": ["empty_text"],
        "gone.jsonl": ["unreadable"],
        "named.parquet": ["not_the_format"],
        "picture.jsonl": ["not_the_format"],
    }
    found = [(row["path"], row["reason"]) for row in quarantine.to_pylist()]
    assert found == [(path, reason) for path, reasons in expected.items() for reason in reasons]
    assert documents["text"].to_pylist() == ["one", "two", "five", "six"]
    assert sum((Counter(result.rejected) for result in results), Counter()) == Counter(reason for _, reason in found)
    assert sum(result.rows_in for result in results) == 4 + len(found)
    assert sum(result.rows_out for result in results) == 4
    assert sum(result.counters["records_in"] for result in results) == 4 + 7
    account = {row["relative"]: (row["records"], row["documents"], row["errors"], row["failed"]) for row in files.to_pylist()}
    assert account["bad.jsonl"] == (9, 2, 6, False)  # an empty text is no error
    assert account["good.jsonl"] == (2, 2, 0, False)
    assert all(account[name] == (0, 0, 0, True) for name in expected if name != "bad.jsonl")
    assert max(len(row) for row in quarantine["first_bytes"].to_pylist()) == 200


def test_numbers_ids_and_columns(raw, tmp_path):
    (raw / "a.jsonl").write_text('{"text": "x", "id": "own", "lang": "en", "url": "http://e", "k": 1}\n{"text": "y"}\n')
    (raw / "b.txt").write_text("z")
    pq.write_table(pa.table({"text": ["p", "q"], "id": [None, "mine"]}), raw / "c.parquet")
    units = plan_units([Source(name="web", kind="web", path=str(raw))])
    _, documents, _, _ = ingest(raw, tmp_path / "out")
    assert documents.schema.equals(DOCUMENTS)
    assert documents.to_pylist()[0] == {
        "doc": 0, "id": "own", "text": "x", "source": "web", "lang": "en", "url": "http://e", "meta": '{"k":1}'
    }  # fmt: skip
    assert documents["id"].to_pylist() == ["own", "a.jsonl#68", "b.txt#0", "c.parquet#0", "mine"]
    assert documents["doc"].to_pylist() == [0, 1, 2, 3, 4]
    later = {**units[0], "rank": 3, "id": "u00003"}
    ingest_unit(later, tmp_path / "later")
    assert read_table(tmp_path / "later" / "documents" / "u00003.parquet")["doc"].to_pylist() == [(3 << 32) + row for row in range(5)]


def test_personal_data_reaches_no_file(raw, tmp_path):
    secret = "jan.nowak40@example.org"
    (raw / "a.jsonl").write_text(
        json.dumps({"text": f"Write to {secret} or 192.0.2.70", "url": f"mailto:{secret}", "by": {"mail": secret}}) + f"\nbroken {secret}\n"
    )
    (result,), documents, quarantine, _ = ingest(raw, tmp_path / "out")
    assert result.counters["masked_email"] == 3
    assert result.counters["masked_ip"] == 1
    shown = f"{documents.to_pylist()} {quarantine.to_pylist()}"
    assert secret not in shown
    assert "192.0.2.70" not in shown
    assert documents["meta"].to_pylist() == ['{"by":{"mail":"email@example.com"}}']
    assert quarantine["first_bytes"].to_pylist() == [b"broken email@example.com"]
    assert result.counters["text_bytes"] == len(documents["text"][0].as_py())


def test_files_are_written_for_nothing_too(raw, tmp_path):
    (raw / "a.jsonl").touch()
    (result,), documents, quarantine, files = ingest(raw, tmp_path / "out")
    assert (result.rows_in, result.rows_out, dict(result.rejected)) == (1, 0, {"empty_text": 1})
    assert documents.num_rows == 0
    assert documents.schema.equals(DOCUMENTS)
    assert quarantine.schema.equals(QUARANTINE)
    assert files.schema.equals(FILES)


def test_row_groups_are_bounded_by_rows_and_by_bytes(raw, tmp_path, monkeypatch):
    (raw / "a.jsonl").write_bytes(jsonl(*(f"text {number}" for number in range(10_000))))
    ingest(raw, tmp_path / "out")
    metadata = pq.read_metadata(tmp_path / "out" / "documents" / "u00000.parquet")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [4096, 4096, 1808]
    monkeypatch.setattr(module, "GROUP_BYTES", 1000)
    (raw / "a.jsonl").write_bytes(jsonl(*["x" * 400] * 7))
    ingest(raw, tmp_path / "small")
    metadata = pq.read_metadata(tmp_path / "small" / "documents" / "u00000.parquet")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [3, 3, 1]


def test_the_size_of_the_units_changes_nothing_but_the_numbers(raw, tmp_path):
    (raw / "a.jsonl").write_bytes(jsonl(*(f"text {number} " + "word " * (number % 50) for number in range(500))))
    (raw / "b.jsonl").write_bytes(jsonl("last"))
    pq.write_table(pa.table({"text": [f"row {row}" for row in range(300)]}), raw / "c.parquet", row_group_size=40)
    whole = ingest(raw, tmp_path / "whole")
    for unit_bytes in (700, 5000, 50_000):
        parts = ingest(raw, tmp_path / str(unit_bytes), unit_bytes)
        assert len(parts[0]) > 1
        assert parts[1].drop_columns("doc").equals(whole[1].drop_columns("doc"))
        assert sum(result.counters["records_in"] for result in parts[0]) == 801


def test_equal_units_give_equal_bytes(raw, tmp_path):
    (raw / "a.jsonl").write_bytes(jsonl("one", "two") + b"bad\n")
    ingest(raw, tmp_path / "first")
    ingest(raw, tmp_path / "second")
    for path in (tmp_path / "first").rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes()


def test_bytes_in_are_those_on_disk(raw, tmp_path):
    (raw / "a.jsonl").write_bytes(jsonl(*["text"] * 100))
    (raw / "b.jsonl.gz").write_bytes(gzip.compress(jsonl("packed")))
    for unit_bytes in (None, 500):
        results = ingest(raw, tmp_path / str(unit_bytes), unit_bytes)[0]
        assert sum(result.counters["bytes_in"] for result in results) == sum(path.stat().st_size for path in raw.iterdir())


def test_the_real_corpus_is_read_whole(shared, tmp_path):
    (result,), documents, quarantine, _ = ingest(shared / "data" / "corpus" / "web-00.jsonl.zst", tmp_path / "out")
    assert (result.rows_in, result.rows_out, quarantine.num_rows) == (402, 402, 0)
    assert documents["id"][0].as_py() == "s000001"
    assert json.loads(documents["meta"][0].as_py()) == {"from": "adbar/trafilatura", "source": "web"}
