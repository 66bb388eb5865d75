"""A small part of a source as JSON Lines, for estimates that should not read it all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import BinaryIO

import orjson
import pyarrow.parquet as pq

from headrace.ingest.documents import read_piece
from headrace.ingest.files import InputFile, find_files
from headrace.ingest.listing import Piece, described, estimated_bytes
from headrace.ingest.objects import for_arrow
from headrace.ingest.personal_data import mask
from headrace.ingest.record import Record
from headrace.ingest.source import Source

FILES = 16  # that a sample is taken from, evenly spread over the source's


def write_sample(source: Source, path: Path, wanted: int) -> int:
    """Write the first documents of up to 16 files of a source, personal data masked: {"id", "text", "lang", "url"} a line.

    Args:
        wanted: bytes of input to read, about; every file gives at least its first record.

    Returns:
        Bytes of input that were read, decompressed: comparable with the sum of `listing.estimated_bytes` over the source.
    """
    files = [file for file in find_files(source) if file.problem is None]
    chosen = files[:: max(1, len(files) // FILES)][:FILES]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        return sum(_copy(file, source.text_field, wanted // len(chosen), out) for file in chosen)


def _copy(file: InputFile, text_field: str, wanted: int, out: BinaryIO) -> int:
    """Write documents of one file until `wanted` bytes of it are read; the bytes that were."""
    unit = _bytes_of_offset(file)
    written = 0
    for item in read_piece(described(Piece(file, 0)), text_field):
        if written and item.offset * unit >= wanted:
            return int(item.offset * unit)
        if isinstance(item, Record):
            fields = {"id": item.id or f"{file.relative}#{item.offset}", "text": item.text, "lang": item.lang, "url": item.url}
            out.write(orjson.dumps({name: mask(value, Counter()) for name, value in fields.items() if value is not None}) + b"\n")
            written += 1
    return estimated_bytes(file)


def _bytes_of_offset(file: InputFile) -> float:
    """Bytes that a record's offset counts: one, but a row's share of a Parquet file."""
    if file.format != "parquet":
        return 1.0
    try:
        with pq.ParquetFile(for_arrow(file.place)) as opened:
            return estimated_bytes(file) / max(1, opened.metadata.num_rows)
    except (OSError, ValueError):
        return 1.0
