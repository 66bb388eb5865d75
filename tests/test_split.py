from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace import artifact, schema
from headrace.split import draw, split_unit


def write_documents(path, texts, rank=0):
    rows = {name: [] for name in schema.DOCUMENTS.names}
    for row, text in enumerate(texts):
        for name, value in zip(schema.DOCUMENTS.names, (rank << 32 | row, f"id{row}", text, "s", None, None, None), strict=True):
            rows[name].append(value)
    artifact.write_table(pa.table(rows, schema=schema.DOCUMENTS), path)
    return str(path)


def write_verdicts(path, reasons, content=None, rank=0):
    columns = {"doc": pa.array([rank << 32 | row for row in range(len(reasons))], pa.int64()), "reason": pa.array(reasons, pa.string())}
    if content is not None:
        columns["content"] = pa.array(content, pa.uint64())
    artifact.write_table(pa.table(columns), path)
    return str(path)


def parts(folder, unit_id):
    return pq.read_table(folder / "verdicts" / f"{unit_id}.parquet")["reason"].to_pylist()


def test_draws_are_uniform_and_depend_on_the_seed():
    drawn = draw(np.arange(200_000, dtype=np.uint64), seed=3)
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    # Binomial: the standard deviation of a share p of n draws is sqrt(p (1 - p) / n).
    for share in (0.01, 0.1, 0.5):
        assert abs((drawn < share).mean() - share) < 4 * np.sqrt(share * (1 - share) / len(drawn))
    assert abs(np.corrcoef(drawn, draw(np.arange(200_000, dtype=np.uint64), seed=4))[0, 1]) < 0.01


def test_documents_of_one_group_share_a_part_and_rejected_ones_have_none(tmp_path):
    content = [number // 4 for number in range(400)]  # groups of four
    reasons = ["near_duplicate" if number % 4 == 3 else None for number in range(400)]
    documents = write_documents(tmp_path / "d.parquet", ["text"] * 400)
    verdicts = [write_verdicts(tmp_path / "f.parquet", [None] * 400), write_verdicts(tmp_path / "v.parquet", reasons, content)]
    unit = {"id": "u00000", "documents": documents, "verdicts": verdicts, "validation": 0.2, "seed": 0, "groups": verdicts[1]}
    result = split_unit(unit, tmp_path / "out")
    found = parts(tmp_path / "out", "u00000")
    for start in range(0, 400, 4):
        assert len(set(found[start : start + 3])) == 1
        assert found[start + 3] is None
    assert set(found) == {"train", "validation", None}
    assert result.rows_in == result.rows_out == 300
    assert result.counters["documents_train"] + result.counters["documents_validation"] == 300


def test_a_document_keeps_its_part_wherever_it_stands(tmp_path):
    texts = [f"text number {number}" for number in range(300)]
    found = {}
    for rank, order in enumerate((texts, texts[::-1])):
        documents = write_documents(tmp_path / f"{rank}.parquet", order, rank)
        unit = {"id": f"u{rank}", "documents": documents, "verdicts": [], "validation": 0.3, "seed": 5, "groups": None}
        split_unit(unit, tmp_path / "out")
        for text, part in zip(order, parts(tmp_path / "out", f"u{rank}"), strict=True):
            assert found.setdefault(text, part) == part
    assert set(found.values()) == {"train", "validation"}
