"""Parquet: rows of some or all row groups, in small batches, page checksums verified where the file has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.config import ConfigError
from headrace.ingest.objects import Place, for_arrow, open_place, size_of
from headrace.ingest.read_jsonl import record_of
from headrace.ingest.record import FIRST_BYTES, MAX_RECORD, Items, Record, Rejected, fault_of_text, rejected_file
from headrace.ingest.streams import MAX_RATIO
from headrace.storage.object_store import StorageError

# A dictionary page of one 16 MiB string can stand for any number of rows, so that a batch is bounded by its rows alone.
BATCH_ROWS = 64
FLOOR = 16 << 20  # bytes of text below which the ratio to the file's size says nothing
MAGIC = b"PAR1"


def read_parquet(path: Place, text_field: str, start: int = 0, stop: int | None = None) -> Items:
    """Documents and rejected rows; a record's offset is its row in the file. Columns of types that are not Arrow's own are left out.

    A row group that cannot be read is one quarantine entry, the others are read.

    Args:
        start, stop: row groups; stop None = to the last.
    """
    fault = _fault_of_file(path)
    if fault is not None:
        if start == 0:  # said once, by the piece that holds the file's first row group
            yield fault
        return
    try:
        file = pq.ParquetFile(for_arrow(path), page_checksum_verification=True)
        schema = file.schema_arrow
    except (StorageError, ConfigError):  # the store's, not the file's
        raise
    except Exception as error:  # also of what Ray has Arrow call for types of its own
        if isinstance(error, MemoryError):
            raise
        if start == 0:
            yield rejected_file(0, "corrupt_stream", f"the footer: {error}")
        return
    with file:
        columns = schema.names
        if text_field not in columns or not _holds_text(schema.field(text_field).type):
            if start == 0:
                kind = f" as text ({schema.field(text_field).type})" if text_field in columns else ""
                yield rejected_file(0, "missing_text", f"no column {text_field!r}{kind}; the columns: {', '.join(columns)}")
            return
        groups = range(file.num_row_groups if stop is None else stop)
        if start == 0 and not file.metadata.num_rows:
            yield rejected_file(0, "empty_text", "no rows")
        row = 0
        for group in groups:
            if group >= start:
                yield from _row_group(file, group, row, text_field, size_of(path))
            row += file.metadata.row_group(group).num_rows


def row_group_bytes(path: Place) -> list[int] | None:
    """Uncompressed bytes of each row group, from the footer alone; None where that cannot be read."""
    if _fault_of_file(path) is not None:
        return None
    try:
        with pq.ParquetFile(for_arrow(path)) as file:
            return [file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)]
    except (OSError, pa.ArrowException):
        return None


def _fault_of_file(path: Place) -> Rejected | None:
    """What the file's first and last bytes say is wrong with it."""
    try:
        with open_place(path) as file:
            first = file.read(len(MAGIC))
            size = file.seek(0, 2)
            file.seek(max(0, size - len(MAGIC)))
            last = file.read()
    except OSError as error:
        return rejected_file(0, "unreadable", f"{type(error).__name__}: {error.strerror or error}")
    if not first:
        return rejected_file(0, "empty_text", "an empty file")
    if first != MAGIC:
        return rejected_file(0, "not_the_format", "does not begin with PAR1")
    if last != MAGIC or size < 12:
        return rejected_file(0, "truncated_stream", "does not end with PAR1")
    return None


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)) or any(
        test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    )


def _is_plain(field: pa.Field) -> bool:
    """Whether a column and all in it are of Arrow's own types.

    A value of another type is made by whoever registered it, and Ray Data registers one that unpickles. Whether it is registered yet
    depends on the process, so a type is told by its name, too.
    """
    kind = field.type
    named = (field.metadata or {}).get(b"ARROW:extension:name")
    if isinstance(kind, pa.BaseExtensionType):
        return not isinstance(kind, pa.ExtensionType)  # the latter are written in Python
    if named is not None:
        return False
    if pa.types.is_dictionary(kind):
        return _is_plain(pa.field("", kind.value_type))
    return all(_is_plain(kind.field(index)) for index in range(kind.num_fields))


def _row_group(file: pq.ParquetFile, group: int, row: int, text_field: str, size: int) -> Items:
    produced = 0
    try:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], use_threads=False):
            kept = [index for index, field in enumerate(batch.schema) if field.name == text_field or _is_plain(field)]
            batch = _with_bytes(batch.select(kept), text_field)
            produced += batch.nbytes
            if produced > max(FLOOR, MAX_RATIO * size):
                yield rejected_file(row, "bomb", f"row group {group} gave {produced} bytes, more than {MAX_RATIO} times the file's {size}")
                return
            for fields in _rows(batch):
                yield _document(row, fields, text_field)
                row += 1
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, MemoryError):  # the machine's fault, not the file's
            raise
        yield rejected_file(row, "corrupt_stream", f"row group {group}: {error}")


def _with_bytes(batch: pa.RecordBatch, text_field: str) -> pa.RecordBatch:
    """The batch with its text as bytes: Arrow does not check that its strings are UTF-8, and converting a batch of them raises for all."""
    column = batch.schema.get_field_index(text_field)
    text = batch.column(column)
    if pa.types.is_dictionary(text.type):
        text = text.dictionary_decode()
    return batch.set_column(column, text_field, text.cast(pa.large_binary()))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """Rows as dictionaries; None for a row that holds invalid UTF-8 in a column other than the text."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(batch.num_rows):
            try:
                yield batch.slice(row, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _document(row: int, fields: dict[str, Any] | None, text_field: str) -> Record | Rejected:
    if fields is None:
        return Rejected(row, "bad_utf8", b"")
    content = fields.pop(text_field)
    if content is None:
        return Rejected(row, "missing_text", b"")
    if len(content) > MAX_RECORD:
        return Rejected(row, "too_long", content[:FIRST_BYTES])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return Rejected(row, "bad_utf8", content[:FIRST_BYTES])
    fault = fault_of_text(text)
    return Rejected(row, fault, content[:FIRST_BYTES]) if fault else record_of(row, text, fields)
