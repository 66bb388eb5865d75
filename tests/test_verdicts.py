from __future__ import annotations

import pyarrow as pa
import pytest

from headrace import artifact
from headrace.verdicts import kept_rows


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
