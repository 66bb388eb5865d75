"""Files of a run by their paths, wherever the run lies: on this machine's disk, or on an object store behind a mirror."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from headrace.config import ConfigError
from headrace.storage import disk
from headrace.storage.disk import ASIDE, as_json
from headrace.storage.mirror import Spot, locate, machine
from headrace.storage.object_store import StorageError
from headrace.storage.stores import ABSENT, patiently

DIGEST = "sha256"  # metadata of every object of ours
PARTS = ".parts"  # behind the name of an append-only file: the folder of what is not joined yet
AT_ONCE = 16  # requests of one call
LOCKS = 64

T = TypeVar("T")


def writable_folder(path: Path, field: str) -> Path:
    """`path`, made if absent.

    Raises:
        ConfigError: it is no folder or cannot be written to.
        StorageError: its store does not answer.
    """
    spot = locate(path)
    if spot is None:
        return disk.writable_folder(path, field)
    probe = Spot(spot.store, f"{spot.key}/{ASIDE}{uuid.uuid4().hex}")
    try:
        probe.store.put(probe.key, b"", {})
        probe.store.delete([probe.key])
    except ConfigError as error:
        raise ConfigError(f"{field} = {spot.url!r}: {error}") from None
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Publish a small file: after a crash it holds the old content or the new, never a part."""
    spot = locate(path)
    if spot is None:
        return disk.write_bytes(path, content)
    spot.store.put(spot.key, content, _digest(content))
    path.unlink(missing_ok=True)  # a copy of what was there before
    return None


def write_json(path: Path, value: Any) -> None:
    """Publish a JSON file."""
    write_bytes(path, as_json(value))


def write_jsons(values: Mapping[Path, Any]) -> None:
    """Publish JSON files, each by itself; on a disk for less than one after the other."""
    contents = {path: as_json(value) for path, value in values.items()}
    if any(map(locate, contents)):
        _each(lambda path: write_bytes(path, contents[path]), list(contents))
    else:
        disk.write_all(contents)


def create(path: Path, content: bytes) -> bool:
    """Publish a small file unless one of that name is there; whether it was us: of any number of callers at once one is told yes."""
    spot = locate(path)
    return disk.create(path, content) if spot is None else spot.store.put(spot.key, content, _digest(content), ABSENT)


def read_bytes(path: Path) -> bytes:
    """A small file's content as it is now.

    Raises:
        FileNotFoundError: no such file.
    """
    spot = locate(path)
    return path.read_bytes() if spot is None else spot.store.get(spot.key)[0]


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no JSON, with its path.
    """
    content = read_bytes(path)
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); delete the file to have it made again.") from None


def read_all(paths: Sequence[Path]) -> list[Any]:
    """The values in many JSON files of one folder, in the order of the paths."""
    return _each(read_json, paths) if paths and locate(paths[0]) else [read_json(path) for path in paths]


def note(path: Path, content: bytes) -> None:
    """`write_bytes`, unless the file says so already: a command that finds nothing to do touches nothing."""
    with contextlib.suppress(FileNotFoundError):
        if read_bytes(path) == content:
            return
    write_bytes(path, content)


def names(folder: Path) -> list[str]:
    """Names of what is published in a folder, in order; none where there is no folder."""
    spot = locate(folder)
    if spot is None:
        return disk.names(folder)
    cut = len(spot.key) + 1
    found = {line.key[cut:].removesuffix("/") for line in spot.store.listed(f"{spot.key}/", shallow=True)}
    return sorted({name.removesuffix(PARTS) for name in found if name and not name.startswith(ASIDE)})


def holding(folder: Path, name: str) -> list[Path]:
    """Folders of a folder in which a file of that name is published, in order: those with a manifest, say."""
    spot = locate(folder)
    if spot is None:
        return [folder / each for each in disk.names(folder) if (folder / each / name).is_file()]
    cut = len(spot.key) + 1
    below = [line.key[cut:].split("/") for line in spot.store.listed(f"{spot.key}/", shallow=False)]
    return [folder / parts[0] for parts in below if len(parts) == 2 and parts[1] == name and not parts[0].startswith(ASIDE)]


def touched(folder: Path) -> dict[str, float]:
    """When each file of a folder was written, in seconds since the epoch, by name."""
    spot = locate(folder)
    found = {}
    if spot is not None:
        lines = spot.store.listed(f"{spot.key}/", shallow=True)
        return {line.key[len(spot.key) + 1 :]: line.modified for line in lines if not line.key.endswith("/")}
    for name in disk.names(folder):
        with contextlib.suppress(FileNotFoundError):  # taken away meanwhile
            found[name] = (folder / name).stat().st_mtime
    return found


def present(path: Path) -> bool:
    """Whether a file is published under that name."""
    spot = locate(path)
    return path.is_file() if spot is None else spot.store.head(spot.key) is not None


def size(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    spot = locate(path)
    if spot is None:
        return path.stat().st_size if path.is_file() else None
    found = spot.store.head(spot.key)
    return None if found is None else found.bytes


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by its path from there."""
    spot = locate(folder)
    if spot is None:
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    cut = len(spot.key) + 1
    return {line.key[cut:]: line.bytes for line in spot.store.listed(f"{spot.key}/", shallow=False)}


def _bytes_here(name: str) -> int | None:
    try:
        found = os.stat(name)  # noqa: PTH116
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def breaches(folder: Path, entries: Sequence[dict[str, Any]]) -> list[str]:
    """Which of a manifest's files are absent or of another size, a sentence each."""
    # One listing tells of all. What it does not hold it may not hold yet: then the store is asked for the file itself.
    here, top = locate(folder) is None, str(folder)
    listed = sizes(folder) if not here and len(entries) > 1 else {}
    wrong = []
    for entry in entries:
        if here and _bytes_here(f"{top}/{entry['path']}") == entry["bytes"]:  # without pathlib: there are as many files as units
            continue
        path = folder / entry["path"]
        found = listed.get(entry["path"])
        if found != entry["bytes"]:
            found = size(path)
        if found is None:
            wrong.append(f"{path}: listed in the manifest, but absent")
        elif found != entry["bytes"]:
            wrong.append(f"{path}: {found} bytes, the manifest says {entry['bytes']}")
    return wrong


def remove(path: Path) -> None:
    """Take a file away, if it is there."""
    if spot := locate(path):
        spot.store.delete([spot.key])
    path.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Take a folder away with all that is below it, if it is there."""
    if spot := locate(folder):
        spot.store.delete([line.key for line in spot.store.listed(f"{spot.key}/", shallow=False)])
    shutil.rmtree(folder, ignore_errors=True)


def file_entry(root: Path, path: Path) -> dict[str, Any]:
    """What a manifest says of one file: path below `root`, bytes, sha256."""
    spot = locate(path)
    if spot is None:
        return disk.file_entry(root, path)
    found = spot.store.head(spot.key)
    if found is None:
        raise FileNotFoundError(f"{spot.url}: no such object")
    digest = found.metadata.get(DIGEST) or disk.file_entry(root, local(path))["sha256"]
    return {"path": path.relative_to(root).as_posix(), "bytes": found.bytes, "sha256": digest}


def publish_tree(scratch: Path, root: Path) -> list[dict[str, Any]]:
    """Move every file below `scratch` to the same relative path below `root`; their entries, ordered by path."""
    if locate(root) is None:
        return disk.publish_tree(scratch, root)
    paths = sorted(path for path in scratch.rglob("*") if path.is_file())

    def publish(path: Path) -> dict[str, Any]:
        entry = disk.file_entry(scratch, path)
        upload(path, root / entry["path"], entry["sha256"])
        return entry

    return _each(publish, paths)


def upload(path: Path, final: Path, sha256: str) -> None:
    """Move a scratch file to its mirrored path: it is on the store then, and its copy is kept here."""
    spot = locate(final)
    assert spot is not None, final
    spot.store.upload(spot.key, path, {DIGEST: sha256})
    final.parent.mkdir(parents=True, exist_ok=True)
    path.replace(final)


def local(path: Path | str) -> Path:
    """A path that can be opened: the path itself, once what is mirrored there was fetched and verified, unless it is here already.

    For files that never change once they are published.

    Raises:
        FileNotFoundError: no such file.
        StorageError: what the store gave is not what was written, again and again.
    """
    path = Path(path)
    spot = locate(path)
    if spot is not None and not path.is_file():
        with _turn(path):
            if not path.is_file():
                patiently(lambda: _fetch(spot, path))
    return path


def drop_copies(folder: Path, kept: Iterable[Path]) -> None:
    """Forget this machine's copies of what is in a mirrored folder's folders, but for those that are kept."""
    if locate(folder) is not None and folder.is_dir():
        stay = {path.name for path in kept}
        for path in folder.iterdir():
            if path.name not in stay and not path.name.startswith(ASIDE):
                shutil.rmtree(path, ignore_errors=True)


def _fetch(spot: Spot, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{ASIDE}{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with aside.open("wb") as handle:
            said = spot.store.download(spot.key, handle)
        found, wanted = disk.file_entry(aside.parent, aside), said.metadata.get(DIGEST)
        if found["bytes"] != said.bytes or (wanted and found["sha256"] != wanted):
            came, written = f"{found['bytes']} bytes, SHA-256 {found['sha256'][:16]}...", f"{said.bytes} bytes, {(wanted or '?')[:16]}..."
            way_out = "run the same command again; if it stays so, delete the object: what is missing is made again"
            raise StorageError(f"{spot.url}: {came} came, where {written} were written; {way_out}.")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """One process of this machine at a time fetches a file: eight ranks want the same shard at the same moment."""
    locks = machine(path.parent) / f"{ASIDE}locks"
    locks.mkdir(parents=True, exist_ok=True)
    number = int.from_bytes(hashlib.sha256(str(path).encode()).digest()[:2], "little") % LOCKS
    descriptor = os.open(locks / str(number), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _digest(content: bytes) -> dict[str, str]:
    return {DIGEST: hashlib.sha256(content).hexdigest()}


def _each(do: Callable[[Any], T], values: Sequence[Any]) -> list[T]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(do, values))
