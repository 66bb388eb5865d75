import json

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.ingest.sample import write_sample
from headrace.ingest.source import Source


def sampled(tmp_path, wanted, **fields):
    source = Source(name="web", kind="web", path=str(tmp_path / "raw"), **fields)
    read = write_sample(source, tmp_path / "sample" / "web.jsonl", wanted)
    return read, [json.loads(line) for line in (tmp_path / "sample" / "web.jsonl").read_text().splitlines()]


def test_a_sample_is_the_beginning_of_files_spread_over_the_source(tmp_path):
    (tmp_path / "raw").mkdir()
    for number in range(64):
        lines = [json.dumps({"body": f"file {number:02d} line {line}"}) for line in range(100)]
        (tmp_path / "raw" / f"{number:02d}.jsonl").write_text("\n".join(lines))
    read, rows = sampled(tmp_path, 16 * 100, text_field="body")
    assert [row["id"] for row in rows if row["id"].endswith("#0")] == [f"{number:02d}.jsonl#0" for number in range(0, 64, 4)]
    assert 16 * 100 <= read < 16 * 140
    assert {row["text"] for row in rows} == {f"file {number:02d} line {line}" for number in range(0, 64, 4) for line in range(4)}


def test_a_small_source_is_taken_whole_and_masked(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_text("write to jan@example.org")
    read, rows = sampled(tmp_path, 10_000)
    assert read == 24
    assert rows == [{"id": "a.txt#0", "text": "write to email@example.com"}]


def test_rows_of_a_table_count_by_their_share_of_the_file(tmp_path):
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.table({"text": [f"row {row}" for row in range(1000)]}), tmp_path / "raw" / "a.parquet")
    whole = int((tmp_path / "raw" / "a.parquet").stat().st_size * 2.5)
    read, rows = sampled(tmp_path, whole // 4)
    assert len(rows) == 250
    assert abs(read - whole / 4) < whole / 500
