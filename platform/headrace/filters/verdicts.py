"""The work unit of the filters stage: one documents file -> one verdicts file beside it, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from headrace import storage
from headrace.artifact import table_writer
from headrace.filters import FilterConfig, annotate, verdict_schema
from headrace.stage import UnitResult
from headrace.text import words

RULES_VERSION = 1  # raised when a rule or a measure changes
VERSION = 100 * words.VERSION + RULES_VERSION  # of the stage's output: a new definition of a word is a new verdict, too

BATCH_ROWS, BATCH_BYTES = 512, 8 << 20  # documents, and bytes of text by the mean of their row group, held at a time
ROW_GROUP_ROWS = 1 << 16  # of verdicts: some 10 MB


def filter_unit(unit: dict[str, Any], folder: Path) -> UnitResult:
    """Judge a documents file.

    Args:
        unit: {"id", "documents": path, "chain": filters as JSON objects}.
        folder: gets `verdicts/<id>.parquet`, of `filters.verdict_schema`; its bytes do not depend on the size of the batches.

    Returns:
        Documents in and kept, rejected by reason; counters: `text_bytes` of all, `text_bytes_kept`.
    """
    chain = TypeAdapter(list[FilterConfig]).validate_python(unit["chain"])
    rejected: Counter[str] = Counter()
    rows = bytes_in = bytes_kept = 0
    pending: list[pa.Table] = []
    with table_writer(folder / "verdicts" / f"{unit['id']}.parquet", verdict_schema(chain)) as writer:
        for docs in _batches(Path(unit["documents"])):
            verdicts = annotate(docs, chain)
            text_bytes = pc.binary_length(docs["text"])
            kept = pc.is_null(verdicts["reason"])
            rows += docs.num_rows
            bytes_in += pc.sum(text_bytes).as_py() or 0
            bytes_kept += pc.sum(pc.filter(text_bytes, kept)).as_py() or 0
            for entry in pc.value_counts(verdicts["reason"].drop_null()).to_pylist():
                rejected[entry["values"]] += entry["counts"]
            pending = _write_whole_groups(writer, [*pending, verdicts])
        writer.write_table(pa.concat_tables([verdict_schema(chain).empty_table(), *pending]))
    return UnitResult(
        rows,
        rows - rejected.total(),
        rejected=dict(sorted(rejected.items())),
        counters={"text_bytes": bytes_in, "text_bytes_kept": bytes_kept},
    )


def _batches(path: Path) -> Iterator[pa.Table]:
    """Documents in order, a bounded number of rows and bytes at a time."""
    with pq.ParquetFile(storage.local(path), page_checksum_verification=True) as file:
        text_column = file.schema_arrow.get_field_index("text")
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            mean_bytes = group.column(text_column).total_uncompressed_size // max(group.num_rows, 1)
            rows = min(BATCH_ROWS, max(1, BATCH_BYTES // max(mean_bytes, 1)))
            for batch in file.iter_batches(rows, row_groups=[number], columns=["doc", "text"], use_threads=False):
                yield pa.Table.from_batches([batch])


def _write_whole_groups(writer: pq.ParquetWriter, pending: list[pa.Table]) -> list[pa.Table]:
    """Write whole row groups of what is pending; the rest. So where groups begin depends on the rows alone."""
    if sum(table.num_rows for table in pending) < ROW_GROUP_ROWS:
        return pending
    table = pa.concat_tables(pending)
    whole = table.num_rows - table.num_rows % ROW_GROUP_ROWS
    writer.write_table(table.slice(0, whole), row_group_size=ROW_GROUP_ROWS)
    return [table.slice(whole)]
