"""The input of a run in its order: files with their digests, and cut into work units.

Both are functions of the files' names and contents alone, never of the workers or of where the files lie.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from headrace.config import ConfigError
from headrace.ingest.files import InputFile, digested, find_files
from headrace.ingest.read_parquet import row_group_bytes
from headrace.ingest.source import Source
from headrace.ingest.streams import compression
from headrace.storage.object_store import StorageError

FEW, MANY = 8, 16  # units that the whole input makes if it is small, and if not, unless that makes them smaller or larger than these
SMALL_BYTES = 256_000_000  # of input: what a unit costs whatever it holds then weighs more than cores that have none
MIN_UNIT_BYTES = 1_000_000
MAX_UNIT_BYTES = 128_000_000

# Decompressed bytes a compressed byte, about: of English text; WARC's HTML compresses better.
EXPANSION = {None: 1.0, "gzip": 3.0, "zstd": 3.5, "lz4": 2.0}
WARC_EXPANSION = {None: 1.0, "gzip": 4.5, "zstd": 5.0, "lz4": 3.0}


class Piece(NamedTuple):
    """A file or a part of one, and the decompressed bytes it is estimated to hold."""

    file: InputFile
    bytes: int
    start: int = 0  # bytes of a plain file, row groups of a Parquet file
    stop: int | None = None  # None = the whole file


def list_files(source: Source) -> list[InputFile]:
    """The files of a source with their digests, ordered by relative path.

    Raises:
        ConfigError: a pattern matches no file.
    """
    return [digested(file) for file in find_files(source)]


def fingerprint_inputs(sources: Sequence[Source]) -> list[list[str | int]]:
    """[source, relative path, bytes, digest] of every input file: what the stage's fingerprint is made from.

    A file that cannot be read has its problem in the digest's place. Absolute paths are not part of it: the same data elsewhere is the
    same input. (On S3 it is another: a store's ETag is not the digest of a local file.)
    """
    ordered = sorted(sources, key=lambda source: source.name)
    return [_fingerprinted(source.name, file) for source in ordered for file in list_files(source)]


def _fingerprinted(name: str, file: InputFile) -> list[str | int]:
    return [name, file.relative, file.bytes, file.problem or file.digest]


def plan_units(
    sources: Sequence[Source], unit_bytes: int | None = None, inputs: Sequence[Sequence[str | int]] | None = None
) -> list[dict[str, Any]]:
    """The work units of ingest, ordered by source name, relative path and offset; ids "u00000"... in that order.

    Small files share a unit. Plain JSON Lines and `lines` are cut at byte ranges (a line belongs to the range in which its first byte
    lies), Parquet between row groups; what is compressed is read as a whole file.

    Args:
        unit_bytes: decompressed bytes of a unit, about; None = `unit_size` of the input.
        inputs: what `fingerprint_inputs` said when the stage got its name; None = nobody asked yet.

    Returns:
        {"id", "source", "kind", "rank", "text_field", "pieces": [{"path", "relative", "format", "start", "stop", "problem"}]} a unit;
        a piece of an object on S3 has the StoredObject's fields as "object", too.

    Raises:
        ConfigError: two sources of one name, or a pattern that matches no file.
        StorageError: objects on S3 are not those of `inputs` any more.
    """
    ordered = sorted(sources, key=lambda source: source.name)
    for first, second in itertools.pairwise(ordered):
        if first.name == second.name:
            raise ConfigError(f"sources: two are named {first.name!r}; a name stands for one source.")
    files = {source.name: find_files(source) for source in ordered}
    if inputs is not None:
        _check_unchanged(files, inputs)
    if unit_bytes is None:
        total = sum(estimated_bytes(file) for found in files.values() for file in found)
        unit_bytes = unit_size(total)
    groups: list[tuple[Source, list[Piece]]] = []
    for source in ordered:
        pieces = [piece for file in files[source.name] for piece in _cut(file, unit_bytes)]
        groups += [(source, group) for group in _grouped(pieces, unit_bytes)]
    digits = max(5, len(str(len(groups))))  # ids sort as ranks do
    return [
        {
            "id": f"u{rank:0{digits}d}",
            "source": source.name,
            "kind": source.kind,
            "rank": rank,
            "text_field": source.text_field,
            "pieces": [described(piece) for piece in group],
        }
        for rank, (source, group) in enumerate(groups)
    ]


def unit_size(total: int) -> int:
    """Bytes of a unit of an input of `total`: a sixteenth, of one below 256 MB an eighth, within 1 and 128 MB."""
    return min(MAX_UNIT_BYTES, max(MIN_UNIT_BYTES, total // (FEW if total < SMALL_BYTES else MANY)))


def _check_unchanged(files: Mapping[str, Sequence[InputFile]], inputs: Sequence[Sequence[str | int]]) -> None:
    """Between two listings of a store somebody may write to it; what is read must be what the stage is named for."""
    for name, found in files.items():
        if found[0].stored:
            now = {tuple(_fingerprinted(name, file)) for file in found}
            changed = now ^ {tuple(entry) for entry in inputs if entry[0] == name}
            if changed:
                raise StorageError(
                    f"sources.{name}.path: {min(changed)[1]} was written or removed while the run began; run the same command again."
                )


def estimated_bytes(file: InputFile) -> int:
    """Decompressed bytes of a file: exact for what is not compressed, by its extension's usual ratio for what is."""
    if file.problem is not None:
        return 0
    factors = WARC_EXPANSION if file.format == "warc" else EXPANSION
    factor = 2.5 if file.format == "parquet" else factors[compression(file.path)]
    return int(file.bytes * factor)


def _cut(file: InputFile, unit_bytes: int) -> list[Piece]:
    """A file as pieces of at most about `unit_bytes`, in its order."""
    size = estimated_bytes(file)
    if size <= unit_bytes or file.problem is not None:
        return [Piece(file, size)]
    if file.format in ("jsonl", "lines") and compression(file.path) is None:
        count = -(-size // unit_bytes)
        edges = [size * number // count for number in range(count + 1)]
        return [Piece(file, stop - start, start, stop) for start, stop in itertools.pairwise(edges)]
    groups = row_group_bytes(file.place) if file.format == "parquet" else None
    if groups is None or len(groups) < 2:
        return [Piece(file, size)]
    pieces = [Piece(file, held, number, number + 1) for number, held in enumerate(groups)]
    return [Piece(file, sum(piece.bytes for piece in run), run[0].start, run[-1].stop) for run in _grouped(pieces, unit_bytes)]


def _grouped(pieces: Sequence[Piece], unit_bytes: int) -> list[list[Piece]]:
    """Runs of neighbouring pieces that hold at most `unit_bytes` together, or a single larger piece."""
    groups: list[list[Piece]] = []
    held = 0
    for piece in pieces:
        if not groups or held + piece.bytes > unit_bytes:
            groups.append([])
            held = 0
        groups[-1].append(piece)
        held += piece.bytes
    return groups


def described(piece: Piece) -> dict[str, Any]:
    """A piece as its unit names it, in plain values."""
    file = piece.file
    return {
        "path": file.path,
        "relative": file.relative,
        "format": file.format,
        "start": piece.start,
        "stop": piece.stop,
        "problem": file.problem,
        **({"object": file.stored._asdict()} if file.stored else {}),
    }
