"""The work unit of ingest: pieces of input files -> documents, quarantine and an account of each file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.artifact import table_writer
from headrace.ingest.objects import for_arrow, name_of, place_of, size_of
from headrace.ingest.personal_data import CLASSES, mask, masked_column, masked_metadata
from headrace.ingest.read_jsonl import read_jsonl
from headrace.ingest.read_parquet import read_parquet
from headrace.ingest.read_text import read_lines, read_text
from headrace.ingest.read_warc import read_warc
from headrace.ingest.record import Ignored, Items, Record, Rejected, rejected_file
from headrace.schema import DOCUMENTS, QUARANTINE, first_doc
from headrace.stage import UnitResult

VERSION = 2  # raised when the output changes: with a reader, a mask, the cut into units, or a version of the library behind one

GROUP_BYTES = 16 << 20  # of text in a row group
GROUP_ROWS = 4096
QUARANTINE_ROWS = 1 << 14

FILES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("relative", pa.string(), nullable=False),
        pa.field("records", pa.int64(), nullable=False),  # raw records, documents or not
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("errors", pa.int64(), nullable=False),  # rejected records, those that are merely empty not counted
        pa.field("failed", pa.bool_(), nullable=False),  # the file could not be read to its end
    ]
)


def ingest_unit(unit: Mapping[str, Any], folder: Path) -> UnitResult:
    """Read a unit of `plan_units` and write what it holds, even where that is nothing.

    Args:
        folder: gets `documents/<id>.parquet` (schema.DOCUMENTS, in row groups of about 16 MiB of text or 4,096 rows), personal data
            masked; `quarantine/<id>.parquet` (schema.QUARANTINE), a row a rejection; `files/<id>.parquet` (FILES), a row a piece, from
            which `budget.file_accounts` judges the input.

    Returns:
        rows_in: documents, and quarantined records (a file that fails is one more); `rejected` by reason. Counters: `records_in`, raw
        records of any kind; `bytes_in`, as they lie on disk; `text_bytes`; `masked_<class>`.
    """
    with ExitStack() as stack:
        documents = _Documents(unit, stack.enter_context(table_writer(folder / "documents" / f"{unit['id']}.parquet", DOCUMENTS)))
        quarantine = _Quarantine(stack.enter_context(table_writer(folder / "quarantine" / f"{unit['id']}.parquet", QUARANTINE)))
        files = stack.enter_context(table_writer(folder / "files" / f"{unit['id']}.parquet", FILES))
        accounts = [_ingest_piece(unit, piece, documents, quarantine) for piece in unit["pieces"]]
        documents.flush()
        quarantine.flush()
        files.write_table(pa.Table.from_pylist(accounts, FILES))
    counters = {
        "records_in": sum(account["records"] for account in accounts),
        "bytes_in": sum(_bytes_of(piece) for piece in unit["pieces"]),
        "text_bytes": documents.text_bytes,
        **{f"masked_{kind}": documents.masked[kind] for kind in CLASSES},
    }
    rejected = dict(sorted(quarantine.reasons.items()))
    return UnitResult(documents.rows + sum(rejected.values()), documents.rows, rejected, counters)


def _ingest_piece(unit: Mapping[str, Any], piece: Mapping[str, Any], documents: _Documents, quarantine: _Quarantine) -> dict[str, Any]:
    """Read one piece to its end; its row of `files`."""
    relative = piece["relative"]
    account = {"source": unit["source"], "relative": relative, "records": 0, "documents": 0, "errors": 0, "failed": False}
    for item in read_piece(piece, unit["text_field"]):
        if isinstance(item, Record):
            documents.add(item, relative)
            account["documents"] += 1
        elif isinstance(item, Rejected):
            quarantine.add(item, relative)
            account["errors"] += not item.whole_file and item.reason != "empty_text"
            account["failed"] |= item.whole_file
        account["records"] += isinstance(item, Record | Ignored) or not item.whole_file
    return account


def read_piece(piece: Mapping[str, Any], text_field: str) -> Items:
    """What a piece of a unit holds, by its format."""
    path, start, stop = place_of(piece), piece["start"], piece["stop"]
    if piece["problem"] is not None:
        return iter([rejected_file(0, "unreadable", piece["problem"])])
    match piece["format"]:
        case "jsonl":
            return read_jsonl(path, text_field, start, stop)
        case "lines":
            return read_lines(path, start, stop)
        case "parquet":
            return read_parquet(path, text_field, start, stop)
        case "warc":
            return read_warc(path)
        case "text":
            return read_text(path)
        case other:
            raise ValueError(f"{name_of(path)}: no reader for the format {other!r}")


def _bytes_of(piece: Mapping[str, Any]) -> int:
    """Bytes on disk of a piece; the row groups of a Parquet file are told from each other by its footer."""
    if piece["problem"] is not None:
        return 0
    path, start, stop = place_of(piece), piece["start"], piece["stop"]
    try:
        if stop is None:
            return size_of(path)
        if piece["format"] != "parquet":
            return stop - start
        with pq.ParquetFile(for_arrow(path)) as file:
            groups = (file.metadata.row_group(group) for group in range(start, stop))
            return sum(group.column(column).total_compressed_size for group in groups for column in range(group.num_columns))
    except (OSError, pa.ArrowException):
        return 0


class _Documents:
    """Documents on their way to a file, a row group held at a time."""

    def __init__(self, unit: Mapping[str, Any], writer: pq.ParquetWriter) -> None:
        self.rows = 0
        self.text_bytes = 0
        self.masked: Counter[str] = Counter()
        self._source = unit["source"]
        self._next = first_doc(unit["rank"])
        self._writer = writer
        self._held: list[tuple[str, Record]] = []
        self._held_chars = 0

    def add(self, record: Record, relative: str) -> None:
        self._held.append((record.id if record.id is not None else f"{relative}#{record.offset}", record))
        self._held_chars += len(record.text)
        if self._held_chars >= GROUP_BYTES or len(self._held) >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        if not self._held:
            return
        count = len(self._held)
        ids, records = zip(*self._held, strict=True)
        text = self._masked(pa.array([record.text for record in records], pa.string()))
        meta, masked = masked_metadata(pa.array([record.meta for record in records], pa.string()))
        self.masked.update(masked)
        columns = [
            pa.array(range(self._next, self._next + count), pa.int64()),
            pa.array(ids, pa.string()),
            text,
            pa.array([self._source] * count, pa.string()),
            pa.array([record.lang for record in records], pa.string()),
            self._masked(pa.array([record.url for record in records], pa.string())),
            meta,
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=DOCUMENTS), row_group_size=count)
        self.rows += count
        self.text_bytes += pc.sum(pc.binary_length(text)).as_py()
        self._next += count
        self._held, self._held_chars = [], 0

    def _masked(self, column: pa.Array) -> pa.Array:
        column, masked = masked_column(column)
        self.masked.update(masked)
        return column


class _Quarantine:
    """Rejections on their way to a file; there may be as many as a file of garbage has lines."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self.reasons: Counter[str] = Counter()
        self._writer = writer
        self._held: list[dict[str, Any]] = []

    def add(self, rejected: Rejected, relative: str) -> None:
        self.reasons[rejected.reason] += 1
        # Bytes as code points, so that what is no UTF-8 is masked too.
        first = mask(rejected.first_bytes.decode("latin-1"), Counter()).encode("latin-1")
        self._held.append({"path": relative, "offset": rejected.offset, "reason": rejected.reason, "first_bytes": first})
        if len(self._held) >= QUARANTINE_ROWS:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_pylist(self._held, QUARANTINE))
        self._held = []
