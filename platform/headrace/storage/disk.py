"""Files on this machine's disk: written aside and published whole, so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace.config import ConfigError

HASH_BLOCK = 1 << 20
ASIDE = ".aside-"  # prefix of everything that is not published; `clean` may delete it at any time when no run is active


def writable_folder(path: Path, field: str) -> Path:
    """`path`, made if absent.

    Raises:
        ConfigError: it is no folder or cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"{ASIDE}{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if is_full(error):
            raise
        why = f"cannot write there ({error.strerror})"
        raise ConfigError(f"{field} = {str(path)!r}: {why}; choose another folder with {field}=PATH.") from None
    return path


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk or the quota is used up: worth retrying once there is room."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def write_bytes(path: Path, content: bytes) -> None:
    """Publish a small file: after a crash it holds the old content or the new, never a part."""
    write_all({path: content})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Publish small files, each as `write_bytes` does; what a disk takes its time for is asked of it once a folder."""
    for path, content in contents.items():
        with _written_aside(path, content) as aside:
            aside.replace(path)
    for folder in {path.parent for path in contents}:
        sync_folder(folder)


def create(path: Path, content: bytes) -> bool:
    """Publish a small file unless one of that name is there; whether it was us: of any number of callers at once one is told yes."""
    with _written_aside(path, content) as aside:
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
    sync_folder(path.parent)
    return True


@contextlib.contextmanager
def _written_aside(path: Path, content: bytes) -> Iterator[Path]:
    """A file with that content beside `path`, on disk for good; gone afterwards unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{ASIDE}{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with aside.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def names(folder: Path) -> list[str]:
    """Names of what is published in a folder, in order; none where there is no folder."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith(ASIDE))
    except (FileNotFoundError, NotADirectoryError):
        return []


def as_json(value: Any) -> bytes:
    """JSON with sorted keys: equal values give equal bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def append_line(path: Path, value: Any) -> None:
    """Add one JSON line to a file that has a single writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode()
    # One write call on an append-only descriptor: a killed writer leaves at most its own last line torn.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[Any]:
    """Every whole JSON line of a file; a torn last line, as a killed writer leaves it, is passed over."""
    return parsed(path.read_bytes()) if path.is_file() else []


def parsed(content: bytes) -> list[Any]:
    """The whole JSON lines in some bytes."""
    found = []
    for line in content.split(b"\n"):
        with contextlib.suppress(ValueError):
            if line:
                found.append(json.loads(line))
    return found


def sync_folder(path: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_entry(root: Path, path: Path) -> dict[str, Any]:
    """What a manifest says of one file: path below `root`, bytes, sha256."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as handle:
        while block := handle.read(HASH_BLOCK):
            digest.update(block)
            size += len(block)
    return {"path": path.relative_to(root).as_posix(), "bytes": size, "sha256": digest.hexdigest()}


@contextlib.contextmanager
def scratch_folder(root: Path, name: str) -> Iterator[Path]:
    """A private folder below `root`, on the same disk as what will be published from it; gone afterwards."""
    folder = root / f"{ASIDE}{name}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_tree(scratch: Path, root: Path) -> list[dict[str, Any]]:
    """Move every file below `scratch` to the same relative path below `root`; their entries, ordered by path."""
    entries = []
    for path in sorted(p for p in scratch.rglob("*") if p.is_file()):
        entry = file_entry(scratch, path)
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        final = root / entry["path"]
        final.parent.mkdir(parents=True, exist_ok=True)
        path.replace(final)
        entries.append(entry)
    for folder in {(root / entry["path"]).parent for entry in entries}:
        sync_folder(folder)
    return entries
