from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace import artifact
from headrace.dedup.sidecars import rows_between, rows_of_rank


@pytest.mark.parametrize("first, last", [(0, 99), (10, 10), (25, 64), (-5, -1), (99, 500), (100, 200)])
def test_rows_between_reads_a_range(tmp_path, first, last):
    table = pa.table({"rank": np.repeat(np.arange(10, dtype=np.int32), 10), "doc": np.arange(100)})
    artifact.write_table(table, tmp_path / "t.parquet", row_group_rows=7)
    assert rows_between(tmp_path / "t.parquet", "doc", first, last)["doc"].to_pylist() == [n for n in range(100) if first <= n <= last]
    assert rows_of_rank(tmp_path / "t.parquet", 3)["doc"].to_pylist() == list(range(30, 40))
