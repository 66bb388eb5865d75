"""Bytes of untrusted files: decompressed in bounded steps, cut into lines of bounded length.

Every reader takes its bytes from here, so that no input can make a worker hold more than a chunk and a record.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import zstandard

from headrace.ingest.objects import Place, name_of, open_place
from headrace.ingest.record import FIRST_BYTES, Reason

CHUNK = 1 << 20  # decompressed bytes a step, at most
MAX_RATIO = 200  # decompressed to compressed bytes; text reaches 10, logs 50
RATIO_FLOOR = 64 << 10  # compressed bytes below which the ratio says nothing
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".lz4": "lz4"}

_ZSTD_FEED = 2 << 10  # a zstd block of 4 bytes may expand to 128 KiB: one step yields at most 64 MiB
_ZSTD_WINDOW = 128 << 20
_LZ4_STEP = 64 << 10
_HELD = 32 << 20
_GZIP_MAGIC = b"\x1f\x8b\x08"
_MAGICS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PAR1\x15": "parquet",
    b"PK\x03\x04": "zip",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"%PDF-": "pdf",
    b"\x7fELF": "elf",
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF89a": "gif",
    b"SQLite format 3\x00": "sqlite",
}


class StreamError(Exception):
    """A file's bytes cannot be had any further; what came before stands."""

    def __init__(self, reason: Reason, why: str, member: int = 0) -> None:
        super().__init__(why)
        self.reason: Reason = reason
        self.member = member  # compressed offset of the gzip member that broke


class Line(NamedTuple):
    """One line without its newline; `content` is None where it is longer than a record may be."""

    offset: int
    content: bytes | None
    first_bytes: bytes


def compression(name: str) -> str | None:
    """The compression that a file's name announces: gzip, zstd, lz4 or None."""
    return COMPRESSIONS.get(Path(name).suffix.lower())


def kind_of(first: bytes) -> str | None:
    """The binary format that a file's first bytes give away, None for what may be text."""
    if len(first) >= 4 and first[1:4] == b"\x2a\x4d\x18" and first[0] >> 4 == 5:
        return "zstd"  # a skippable frame
    return next((kind for magic, kind in _MAGICS.items() if first.startswith(magic)), None)


def chunks(path: Place, start: int = 0, *, whole_members: bool = False) -> Iterator[bytes]:
    """Decompressed bytes of a whole file, by its name's compression.

    Args:
        start: compressed offset to begin at; that of a gzip member for a compressed file.
        whole_members: hold back a gzip member of up to 32 MiB until its checksum is verified or the file ends: a broken one gives nothing.

    Raises:
        StreamError: unreadable, not the format, corrupt, truncated, a bomb; after everything before that point was yielded.
    """
    named = compression(name_of(path))
    try:
        with open_place(path) as file:
            first = file.read(16)
            found = kind_of(first)
            if first and found != named:
                raise StreamError("not_the_format", f"named {named or 'uncompressed'}, but the content is {found or 'not compressed'}")
            file.seek(start)
            if named is None:
                yield from iter(lambda: file.read(CHUNK), b"")
            elif named == "gzip":
                yield from _bounded(file, _gunzip(file, _HELD if whole_members else 0), start)
            else:
                yield from _bounded(file, _unzstd(file) if named == "zstd" else _unlz4(file), start)
    except OSError as error:
        raise StreamError("unreadable", f"{type(error).__name__}: {error.strerror or error}") from None


def _bounded(file: BinaryIO, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
    """The pieces of a decompressor, until they are out of proportion to what it has read."""
    total = 0
    for piece in pieces:
        total += len(piece)
        consumed = file.tell() - start
        if total > MAX_RATIO * max(consumed, RATIO_FLOOR):
            raise StreamError("bomb", f"{consumed} compressed bytes gave {total}, more than {MAX_RATIO} times as many")
        if piece:
            yield piece


def _gunzip(file: BinaryIO, hold: int) -> Iterator[bytes]:
    """RFC 1952 with any number of members; zero padding after the last one is allowed.

    Args:
        hold: decompressed bytes of a member up to which it is held back until it is whole.
    """
    member = file.tell()
    decoder = zlib.decompressobj(31)
    started = False
    held: list[bytes] = []
    room = hold
    while block := file.read(64 << 10):
        while block:
            if not started:
                padding = len(block) - len(block.lstrip(b"\0"))
                member = file.tell() - len(block) + padding
                block = block[padding:]
                started = bool(block)
                continue
            piece = _inflated(decoder, block, member)
            held.append(piece)
            room -= len(piece)
            block = decoder.unconsumed_tail
            if decoder.eof:
                block = decoder.unused_data
                decoder = zlib.decompressobj(31)
                started = False
            if room <= 0 or not started:
                yield b"".join(held)
                held = []
            if not started:
                room = hold
    while started and not decoder.eof and (piece := _inflated(decoder, b"", member)):
        held.append(piece)  # output that the decompressor still held although all its input was used
    yield b"".join(held)
    if started and not decoder.eof:
        raise StreamError("truncated_stream", "gzip: the file ends inside a member", member)


def _inflated(decoder: zlib._Decompress, block: bytes, member: int) -> bytes:
    try:
        return decoder.decompress(block, CHUNK)
    except zlib.error as error:
        raise StreamError("corrupt_stream", f"gzip: {error}", member) from None


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    """RFC 8878 with any number of frames."""
    source = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    decoder = source.decompressobj()
    started = False
    while block := file.read(_ZSTD_FEED):
        while block:
            try:
                piece = decoder.decompress(block)
            except zstandard.ZstdError as error:
                raise StreamError("corrupt_stream", f"zstd: {error}") from None
            started = not decoder.eof
            yield piece
            block = b""
            if decoder.eof:
                block = decoder.unused_data
                decoder = source.decompressobj()
    if started:
        raise StreamError("truncated_stream", "zstd: the file ends inside a frame")


def _unlz4(file: BinaryIO) -> Iterator[bytes]:
    """LZ4 frames; up to 64 KiB before a fault are lost, since the stream raises in place of a short read."""
    with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "lz4") as stream:
        while True:
            try:
                piece = stream.read(_LZ4_STEP)
            except OSError as error:
                reason: Reason = "truncated_stream" if "runcated" in str(error) else "corrupt_stream"
                raise StreamError(reason, f"lz4: {error}") from None
            if not piece:
                return
            yield piece


def next_member(path: Place, after: int, begins: bytes) -> int | None:
    """Compressed offset of the next gzip member behind `after` whose content begins with `begins`, None if there is none."""
    overlap = len(_GZIP_MAGIC) - 1
    with open_place(path) as file:
        position = after + 1
        file.seek(position)
        block = b""
        while more := file.read(CHUNK):
            block += more
            at = block.find(_GZIP_MAGIC)
            while at >= 0:
                if _begins(path, position + at, begins):
                    return position + at
                at = block.find(_GZIP_MAGIC, at + 1)
            position += len(block) - overlap
            block = block[-overlap:]
    return None


def _begins(path: Place, member: int, begins: bytes) -> bool:
    with open_place(path) as file:
        file.seek(member)
        try:
            return zlib.decompressobj(31).decompress(file.read(4096), len(begins)) == begins
        except zlib.error:
            return False


def byte_range(path: Place, start: int, stop: int) -> Iterator[bytes]:
    """Bytes of an uncompressed file from `start`, and on past `stop` for as long as the reader asks: to its last line's end.

    Raises:
        StreamError: the file cannot be read.
    """
    try:
        with open_place(path) as file:
            file.seek(start)
            step = max(1, min(CHUNK, stop - start + 1))
            while block := file.read(step):
                yield block
                step = CHUNK
    except OSError as error:
        raise StreamError("unreadable", f"{type(error).__name__}: {error.strerror or error}") from None


def lines(pieces: Iterator[bytes], longest: int, offset: int = 0) -> Iterator[Line]:
    """Lines cut at `\\n` alone (JSON strings may hold U+2028 and the like); of a longer one only its first bytes are kept.

    Args:
        longest: bytes that a line may have.
        offset: of the first piece in its file.
    """
    parts: list[bytes] = []  # of the line that is not yet at its end
    length = 0  # bytes of that line so far
    first = b""  # of that line, once it is too long and its parts are dropped
    for piece in pieces:
        end = piece.find(b"\n")
        if end >= 0 and length:
            if length + end > longest:
                yield Line(offset, None, first or (b"".join(parts) + piece[:end])[:FIRST_BYTES])
            else:
                content = b"".join(parts) + piece[:end]
                yield Line(offset, content, content[:FIRST_BYTES])
            offset += length + end + 1
            piece = piece[end + 1 :]
            parts, length, first = [], 0, b""
        if end >= 0:
            *whole, piece = piece.split(b"\n")
            for line in whole:
                yield Line(offset, line if len(line) <= longest else None, line[:FIRST_BYTES])
                offset += len(line) + 1
        if piece:
            length += len(piece)
            if not first:
                parts.append(piece)
                if length > longest:
                    first, parts = b"".join(parts)[:FIRST_BYTES], []
    if length:
        content = b"".join(parts)
        yield Line(offset, None if first else content, first or content[:FIRST_BYTES])
