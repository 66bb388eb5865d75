"""Which files a source names: patterns to paths, with what will keep a file from being read."""

from __future__ import annotations

import functools
import glob
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import xxhash

from headrace.config import ConfigError
from headrace.ingest.object_listing import find_objects
from headrace.ingest.objects import SCHEME, Place, StoredObject
from headrace.ingest.source import Format, Source
from headrace.ingest.streams import COMPRESSIONS

BLOCK = 1 << 20
WHOLE_BYTES = 256 << 20  # files up to this size are digested whole
BLOCKS = 64  # of a larger one
EXTENSIONS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".warc": "warc",
    ".wet": "warc",
    ".arc": "warc",
}


@dataclass(frozen=True)
class InputFile:
    """One file of a source."""

    path: str  # absolute; of an object its URL
    relative: str  # to the longest folder without a wildcard that all of the source's patterns share; with / on every system
    bytes: int
    format: Format
    digest: str = ""  # xxh3_128, hexadecimal; see `digest_of`; empty where it was not asked for; of an object its ETag
    problem: str | None = None  # why it will not be read; it is quarantined then, as unreadable
    stored: StoredObject | None = None  # where it lies on S3

    @property
    def place(self) -> Place:
        return self.path if self.stored is None else self.stored


def find_files(source: Source) -> list[InputFile]:
    """The files of a source without their digests: nothing is opened.

    Raises:
        ConfigError: a pattern matches no file.
        StorageError: a store does not answer.
    """
    field = f"sources.{source.name}.path"
    if any(pattern.startswith(SCHEME) for pattern in source.patterns):
        return _stored(source, field)
    patterns = [_absolute(pattern, field) for pattern in source.patterns]
    roots = [_root(pattern) for pattern in patterns]
    common = Path(os.path.commonpath(roots))
    found: dict[str, InputFile] = {}
    for pattern, root, given in zip(patterns, roots, source.patterns, strict=True):
        matched = sorted(_matches(pattern))
        if not matched:
            raise ConfigError(_nothing(field, given, pattern, root))
        for path in matched:
            if path not in found:
                found[path] = _described(path, root, common, source, named=path == pattern)
    return sorted(found.values(), key=lambda file: (file.relative, file.path))


def _stored(source: Source, field: str) -> list[InputFile]:
    """The files of a source on S3."""
    other = next((pattern for pattern in source.patterns if not pattern.startswith(SCHEME)), None)
    if other is not None:
        raise ConfigError(f"{field} = {other!r} is not on S3 as the source's other paths are; make it a source of its own.")
    files = [
        InputFile(found.url, relative, found.bytes, _format_in(found.key, source), digest=f"etag:{found.etag}", stored=found)
        for relative, found in find_objects(source.patterns, field)
    ]
    return sorted(files, key=lambda file: (file.relative, file.path))


def _absolute(pattern: str, field: str) -> str:
    if "://" in pattern:
        raise ConfigError(
            f"{field} = {pattern!r}: input is read from local or mounted folders and from S3 (s3://bucket/prefix); "
            f"mount what lies elsewhere, or copy it first."
        )
    return os.path.abspath(os.path.expanduser(pattern))  # noqa: PTH100, PTH111 - it may hold wildcards


def _root(pattern: str) -> str:
    """The longest folder of a pattern without a wildcard."""
    path = Path(pattern)
    if path.is_dir():
        return pattern
    if path.exists() or not glob.has_magic(pattern):
        return str(path.parent)
    while glob.has_magic(str(path)):
        path = path.parent
    return str(path)


def _matches(pattern: str) -> Iterator[str]:
    """Files of a pattern, hidden ones left out; of a folder, all below it. Links to folders are not followed."""
    if Path(pattern).is_dir():
        for folder, folders, names in os.walk(pattern, onerror=_unlisted):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (os.path.join(folder, name) for name in names if not name.startswith("."))  # noqa: PTH118
    elif os.path.lexists(pattern):
        yield pattern  # also where its name holds [ or *
    else:
        yield from (path for path in glob.glob(pattern, recursive=True) if not Path(path).is_dir())  # noqa: PTH207 - takes absolute patterns


def _unlisted(error: OSError) -> None:
    raise ConfigError(f"{error.filename}: the folder cannot be listed ({error.strerror}); make it readable, or name the others one by one.")


def _nothing(field: str, given: str, pattern: str, root: str) -> str:
    if not Path(root).is_dir():
        why = f"the folder {root} does not exist"
    elif Path(pattern).is_dir():
        why = "the folder holds no file"
    elif glob.glob(pattern, recursive=True):  # noqa: PTH207
        why = "it matches folders only; end it with /** to read what is in them"
    else:
        names = sorted(entry.name for entry in Path(root).iterdir() if not entry.name.startswith("."))
        why = f"{root} holds {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else f"{root} is empty"
    return f"{field} = {given!r} matches no file: {why}. Correct it in the YAML or on the command line: 'sources.0.path=/data/*.jsonl.zst'."


def _described(path: str, root: str, common: Path, source: Source, named: bool) -> InputFile:
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    relative = Path(shown).relative_to(common).as_posix()
    format = _format_in(path, source)
    problem, size = None, 0
    try:
        status = Path(path).stat()
        size = status.st_size
        if shown != path:
            problem = "its name is not UTF-8"
        elif not stat.S_ISREG(status.st_mode):
            problem, size = "not a regular file", 0
        elif not named and not Path(path).resolve().is_relative_to(Path(root).resolve()):
            # Somebody else's folder must not reach the rest of the disk. A link that the configuration names itself is followed.
            problem = f"a link that leads outside of its folder, to {Path(path).resolve().name}; name the target's own folder in the path"
        elif not os.access(path, os.R_OK):
            problem = "no permission to read it"
    except OSError as error:
        problem = f"{type(error).__name__}: {error.strerror}"
    return InputFile(shown, relative, size, format, problem=problem)


def _format_in(path: str, source: Source) -> Format:
    """The source's format, or that which a file's name announces; of an unknown extension it is a text."""
    if source.format != "auto":
        return source.format
    name = Path(path)
    if name.suffix.lower() in COMPRESSIONS:
        name = name.with_suffix("")
    return EXTENSIONS.get(name.suffix.lower(), "text")


def digested(file: InputFile) -> InputFile:
    """The file with its digest, or with the problem that kept it from being read; an object's came with its listing."""
    if file.problem is not None or file.stored is not None:
        return file
    try:
        return replace(file, digest=_cached_digest(file.path, file.bytes, Path(file.path).stat().st_mtime_ns))
    except OSError as error:
        return replace(file, problem=f"{type(error).__name__}: {error.strerror}")


@functools.lru_cache(maxsize=1 << 20)
def _cached_digest(path: str, size: int, _modified: int) -> str:
    """A process asks for the names of its stages several times; a file that was written to in between is read again."""
    return digest_of(path, size)


def digest_of(path: str, size: int) -> str:
    """xxh3_128 of a file, hexadecimal.

    Of the whole content up to 256 MiB. Of a larger file: of its size (8 bytes, little-endian) and 64 blocks of 1 MiB, block i at byte
    i * (size - 1 MiB) // 63; so an edit of the same length between the blocks is not noticed.
    """
    digest = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        if size <= WHOLE_BYTES:
            while block := file.read(BLOCK):
                digest.update(block)
        else:
            digest.update(size.to_bytes(8, "little"))
            for block_number in range(BLOCKS):
                file.seek(block_number * (size - BLOCK) // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
