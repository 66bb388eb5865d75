from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace import artifact
from headrace.dedup import sidecars
from headrace.dedup.sidecars import rows_between, rows_of_rank, text_batches


def write_documents(path, texts, row_group_rows=4):
    artifact.write_table(pa.table({"doc": np.arange(len(texts)) + (5 << 32), "text": texts}), path, row_group_rows)


@pytest.mark.parametrize("batch_bytes", [1, 100, 1 << 20])
@pytest.mark.parametrize("wanted", [[], [0], [3, 4, 11], [12], list(range(13))])
def test_wanted_texts_come_with_their_numbers_whatever_the_batch(tmp_path, monkeypatch, wanted, batch_bytes):
    monkeypatch.setattr(sidecars, "BATCH_BYTES", batch_bytes)
    texts = [f"text {row} " * row for row in range(13)]
    write_documents(tmp_path / "d.parquet", texts)
    chosen = np.zeros(13, bool)
    chosen[wanted] = True
    found = [(doc, text) for docs, some in text_batches(tmp_path / "d.parquet", chosen) for doc, text in zip(docs.tolist(), some)]
    assert found == [((5 << 32) + row, texts[row]) for row in wanted]


def test_batches_are_bounded_by_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(sidecars, "BATCH_BYTES", 20_000)
    rng = np.random.default_rng(0)
    write_documents(tmp_path / "d.parquet", [rng.bytes(500).hex() for _ in range(100)], row_group_rows=1000)
    sizes = [len(texts) for _, texts in text_batches(tmp_path / "d.parquet", np.ones(100, bool))]
    assert sum(sizes) == 100
    assert 10 <= max(sizes) <= 20


@pytest.mark.parametrize("first, last", [(0, 99), (10, 10), (25, 64), (-5, -1), (99, 500), (100, 200)])
def test_rows_between_reads_a_range(tmp_path, first, last):
    table = pa.table({"rank": np.repeat(np.arange(10, dtype=np.int32), 10), "doc": np.arange(100)})
    artifact.write_table(table, tmp_path / "t.parquet", row_group_rows=7)
    assert rows_between(tmp_path / "t.parquet", "doc", first, last)["doc"].to_pylist() == [n for n in range(100) if first <= n <= last]
    assert rows_of_rank(tmp_path / "t.parquet", 3)["doc"].to_pylist() == list(range(30, 40))
