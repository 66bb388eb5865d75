"""What the phases of deduplication leave for one another: integer tables, written in row groups and read by range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace import artifact, storage

FLUSH_BYTES = 8 << 20  # of integers that wait to be written together
FLUSH_ROWS = 1 << 16  # of them that a pass takes at a time


class RowWriter:
    """A Parquet file of rows that come in small tables: gathered to row groups of about FLUSH_BYTES in memory."""

    def __init__(self, path: Path, columns: pa.Schema) -> None:
        self._columns = columns
        self._writer = artifact.table_writer(path, columns, dictionary=False)
        self._waiting: list[pa.Table] = []
        self._bytes = 0

    def write(self, *columns: Any) -> None:
        """Rows to come, a NumPy or Arrow array a column."""
        arrays = [pa.array(column) if isinstance(column, np.ndarray) else column for column in columns]
        self._waiting.append(pa.table(arrays, schema=self._columns))
        self._bytes += self._waiting[-1].nbytes
        if self._bytes >= FLUSH_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.concat_tables([self._columns.empty_table(), *self._waiting]).combine_chunks())
        self._waiting.clear()
        self._bytes = 0


def rows_between(path: Path, column: str, first: int, last: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of a Parquet file whose integer `column` lies in [first, last]; only row groups that can hold some are read."""
    with pq.ParquetFile(storage.local(path), page_checksum_verification=True) as file:
        place = file.schema_arrow.names.index(column)
        groups = []
        for group in range(file.metadata.num_row_groups):
            bounds = file.metadata.row_group(group).column(place).statistics
            if bounds is None or not bounds.has_min_max or (bounds.min <= last and bounds.max >= first):
                groups.append(group)
        table = file.read_row_groups(groups, columns=list(columns) if columns is not None else None)
    return table.filter(pc.and_(pc.greater_equal(table[column], first), pc.less_equal(table[column], last)))


def rows_of_rank(path: str | Path, rank: int) -> pa.Table:
    """Rows that belong to the documents file of this rank, from a table keyed by `rank`."""
    return rows_between(Path(path), "rank", rank, rank)
