from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace import artifact, schema, verdicts
from headrace.verdicts import cuts_of, kept_rows, parts_of, text_batches


def test_a_document_is_kept_if_every_earlier_stage_keeps_it(tmp_path):
    artifact.write_table(pa.table({"text": ["a"] * 4}), tmp_path / "d.parquet")
    paths = []
    for number, reasons in enumerate([[None, "x", None, None], [None, None, "y", None]]):
        paths.append(str(tmp_path / f"{number}.parquet"))
        artifact.write_table(pa.table({"reason": pa.array(reasons, pa.string())}), tmp_path / f"{number}.parquet")
    unit = {"documents": str(tmp_path / "d.parquet")}
    assert kept_rows({**unit, "verdicts": paths}).tolist() == [True, False, False, True]
    assert kept_rows({**unit, "verdicts": []}).all()
    artifact.write_table(pa.table({"reason": pa.array([None], pa.string())}), tmp_path / "short.parquet")
    with pytest.raises(ValueError, match="1 verdicts for the 4 documents"):
        kept_rows({**unit, "verdicts": [str(tmp_path / "short.parquet")]})


def test_cuts_of_several_stages_are_brought_together_and_whole_documents_left_to_the_verdicts(tmp_path):
    rows = [[(7, "sentence", 5, 9), (7, "token", 8, 12), (8, "document", None, None)], [(7, "ngram", 30, 40), (9, "ngram", 0, 3)]]
    paths = []
    for number, some in enumerate(rows):
        paths.append(str(tmp_path / f"{number}.parquet"))
        listed = [dict(zip(("doc", "level", "start", "end"), row)) | {"id": "x", "kept_id": None, "score": 1.0} for row in some]
        artifact.write_table(pa.Table.from_pylist(listed, schema=schema.REMOVED), tmp_path / f"{number}.parquet")
    cuts = cuts_of({"removed": paths})
    assert {doc: cuts.of(doc) for doc in (7, 8, 9)} == {7: [(5, 12), (30, 40)], 8: [], 9: [(0, 3)]}
    assert cuts_of({"removed": []}).of(7) == []


def test_parts_are_those_of_kept_documents(tmp_path):
    artifact.write_table(pa.table({"text": ["a"] * 3}), tmp_path / "d.parquet")
    for name, reasons in (("earlier", [None, "x", None]), ("split", ["train", "train", "validation"])):
        artifact.write_table(pa.table({"reason": pa.array(reasons, pa.string())}), tmp_path / f"{name}.parquet")
    paths = [str(tmp_path / f"{name}.parquet") for name in ("earlier", "split")]
    assert parts_of({"documents": str(tmp_path / "d.parquet"), "verdicts": paths}).tolist() == ["train", None, "validation"]


def write_documents(path, texts, row_group_rows=4):
    artifact.write_table(pa.table({"doc": np.arange(len(texts)) + (5 << 32), "text": texts}), path, row_group_rows)


@pytest.mark.parametrize("batch_bytes", [1, 100, 1 << 20])
@pytest.mark.parametrize("wanted", [[], [0], [3, 4, 11], [12], list(range(13))])
def test_wanted_texts_come_with_their_numbers_whatever_the_batch(tmp_path, monkeypatch, wanted, batch_bytes):
    monkeypatch.setattr(verdicts, "BATCH_BYTES", batch_bytes)
    texts = [f"text {row} " * row for row in range(13)]
    write_documents(tmp_path / "d.parquet", texts)
    chosen = np.zeros(13, bool)
    chosen[wanted] = True
    found = [
        (doc, text) for docs, some in text_batches(tmp_path / "d.parquet", chosen) for doc, text in zip(docs.tolist(), some.to_pylist())
    ]
    assert found == [((5 << 32) + row, texts[row]) for row in wanted]


def test_batches_are_bounded_by_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "BATCH_BYTES", 20_000)
    rng = np.random.default_rng(0)
    write_documents(tmp_path / "d.parquet", [rng.bytes(500).hex() for _ in range(100)], row_group_rows=1000)
    sizes = [len(texts) for _, texts in text_batches(tmp_path / "d.parquet", np.ones(100, bool))]
    assert sum(sizes) == 100
    assert 10 <= max(sizes) <= 20
