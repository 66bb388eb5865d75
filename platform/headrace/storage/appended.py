"""Append-only files: appended to on disk; on an object store, which cannot append, numbered parts that are joined now and then.

    train/metrics.jsonl                   the lines that were joined; its metadata says up to which part
    train/metrics.jsonl.parts/00000018    lines of a few seconds, and so on; a part that is joined already counts no more

A writer publishes what it has at least every PUBLISH_S seconds, so that many does a killed one lose. Parts are created, never replaced:
several processes may write to one file. Joining replaces the very version that was read, so of two at once one has no effect. No listing
is relied on: parts are numbered without a gap, and read one after the other until there is none.

A process that was given up for dead and comes back may hold lines that its successor has written meanwhile: `append_line(unless=)` is
asked again when lines are published.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from headrace.config import ConfigError
from headrace.storage import disk
from headrace.storage.files import PARTS
from headrace.storage.mirror import Spot, locate
from headrace.storage.object_store import StorageError
from headrace.storage.stores import ABSENT

log = logging.getLogger("headrace")

PUBLISH_S = 10.0
TRIES = 100  # where another joins the same file at the same moment
LOOK_S = 5.0  # between two looks at a file that grows on a store
JOINED = "joined"  # metadata of the joined lines: the number of the last part among them

Refusal = Callable[[], object]  # why lines may not be published any more; None while they may


class Lines(NamedTuple):
    """A file as it stands on the store."""

    content: bytes
    version: str  # of the joined lines; ABSENT where nothing was joined yet
    joined: int  # parts in them
    last: int  # part there is


class Writer:
    """Lines of this process for one file that are not published yet."""

    def __init__(self, spot: Spot) -> None:
        self._spot = spot
        self._lines: list[bytes] = []
        self._number = 0  # of the part that was published last
        self._adding, self._publishing = threading.Lock(), threading.Lock()
        self._timer: threading.Timer | None = None
        self._unless: Refusal | None = None

    def add(self, line: bytes, unless: Refusal | None) -> None:
        with self._adding:
            self._lines.append(line)
            self._unless = unless
            if self._timer is None:
                self._timer = threading.Timer(0.8 * PUBLISH_S, self._in_time)
                self._timer.daemon = True
                self._timer.start()

    def publish(self) -> None:
        """Return once every line added so far is on the store, or may not be there any more.

        Raises:
            StorageError, ConfigError: see `Store`; the lines are kept for the next time.
        """
        with self._publishing:
            with self._adding:
                lines, self._lines = self._lines, []
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
            if not lines:
                return
            try:
                if self._unless and (why := self._unless()):
                    log.warning("%s: %d lines are not published: %s", self._spot.url, len(lines), why)
                else:
                    self._put(b"".join(lines))
            except BaseException:
                with self._adding:
                    self._lines = lines + self._lines
                raise

    def stop(self) -> None:
        """Publish nothing any more, once this returns."""
        with self._publishing, self._adding:
            self._lines = []
            if self._timer is not None:
                self._timer.cancel()

    def _put(self, content: bytes) -> None:
        store, key = self._spot
        for _ in range(TRIES):
            number = max(self._number, _joined(self._spot)[1]) + 1
            while not store.put(_part(key, number), content, {}, ABSENT):
                number += 1
            self._number = number
            # The number may have been joined and taken away between the two: such a part would never be read.
            if _joined(self._spot)[1] < number or content in store.get(key)[0]:
                return
        raise _unsettled(self._spot)

    def _in_time(self) -> None:
        with self._adding:
            self._timer = None
        try:
            self.publish()
        except (StorageError, ConfigError, OSError) as error:
            log.warning("%s: lines are held back: %s", self._spot.url, error)
            with self._adding:
                if self._lines and self._timer is None:
                    self._timer = threading.Timer(0.8 * PUBLISH_S, self._in_time)
                    self._timer.daemon = True
                    self._timer.start()


_writers: dict[str, Writer] = {}
_making = threading.Lock()


def forget() -> None:
    """Let go of all lines of this process that are not published."""
    for writer in _writers.values():
        writer.stop()
    _writers.clear()


os.register_at_fork(after_in_child=_writers.clear)  # they are the parent's to publish


def append_line(path: Path, value: Any, *, unless: Refusal | None = None) -> None:
    """Add one JSON line to a file.

    Args:
        unless: asked before lines are published later than they were added, as on a store; where it says why not, they are dropped.
    """
    spot = locate(path)
    if spot is None:
        return disk.append_line(path, value)
    with _making:
        writer = _writers.setdefault(str(path), Writer(spot))
    writer.add((json.dumps(value, ensure_ascii=False) + "\n").encode(), unless)
    return None


def flush(path: Path | None = None) -> None:
    """Publish what this process added to a file, or to any: before what must not be seen without it, and at the end."""
    for name, writer in list(_writers.items()):
        if path is None or name == str(path):
            writer.publish()


@atexit.register
def _flush_at_exit() -> None:
    try:
        flush()
    except (StorageError, ConfigError, OSError, RuntimeError) as error:  # RuntimeError: the interpreter starts no thread any more
        log.error("lines were lost: %s", error)


def read_lines(path: Path) -> list[Any]:
    """Every whole JSON line of a file; a torn last line, as a killed writer leaves it, is passed over."""
    spot = locate(path)
    if spot is None:
        return disk.read_lines(path)
    flush(path)
    return disk.parsed(_read(spot).content)


def rewrite_lines(path: Path, values: list[Any]) -> None:
    """Replace all lines of a file."""
    content = "".join(json.dumps(value) + "\n" for value in values).encode()
    spot = locate(path)
    if spot is None:
        return disk.write_bytes(path, content)
    flush(path)
    for _ in range(TRIES):
        found = _read(spot)
        if spot.store.put(spot.key, content, {JOINED: str(found.last)}, found.version):
            _drop(spot, found)
            return None
    raise _unsettled(spot)


def join(run: Path) -> None:
    """Join the parts of a run's append-only files, and publish what this process has; on disk there is nothing to do."""
    if locate(run) is None:
        return
    flush()
    for folder in (run, run / "train", run / "control"):
        spot = locate(folder)
        assert spot is not None
        for line in spot.store.listed(f"{spot.key}/", shallow=True):
            if line.key.endswith(f"{PARTS}/"):
                _join(Spot(spot.store, line.key.removesuffix(f"{PARTS}/")))


def _join(spot: Spot) -> None:
    found = _read(spot)
    if found.last > found.joined and spot.store.put(spot.key, found.content, {JOINED: str(found.last)}, found.version):
        _drop(spot, found)


def _drop(spot: Spot, found: Lines) -> None:
    """Take the parts away that are joined now, and what an earlier call left of them."""
    listed = [line.key for line in spot.store.listed(f"{spot.key}{PARTS}/", shallow=False)]
    known = [_part(spot.key, number) for number in range(found.joined + 1, found.last + 1)]
    spot.store.delete(sorted({*known, *(key for key in listed if _number(key) <= found.last)}))


def _read(spot: Spot) -> Lines:
    """The file as it stands, at one moment."""
    store, key = spot
    for _ in range(TRIES):
        content, version, joined = b"", ABSENT, 0
        with contextlib.suppress(FileNotFoundError):
            content, head = store.get(key)
            version, joined = head.version, int(head.metadata.get(JOINED, 0))
        pieces, number = [content], joined
        while True:
            try:
                pieces.append(store.get(_part(key, number + 1))[0])
            except FileNotFoundError:
                break
            number += 1
        if _joined(spot) == (version, joined):  # else they were joined, and taken away, under our eyes
            return Lines(b"".join(pieces), version, joined, number)
    raise _unsettled(spot)


def _unsettled(spot: Spot) -> StorageError:
    return StorageError(f"{spot.url}: was joined by others {TRIES} times while it was at hand; is a second driver at work on this run?")


def _joined(spot: Spot) -> tuple[str, int]:
    """Version of the joined lines, and how many parts are in them."""
    head = spot.store.head(spot.key)
    return (ABSENT, 0) if head is None else (head.version, int(head.metadata.get(JOINED, 0)))


def _part(key: str, number: int) -> str:
    return f"{key}{PARTS}/{number:08d}"


def _number(key: str) -> int:
    return int(key.rpartition("/")[2])


class StoreTail:
    """New lines of a file on a store that grows, at each look."""

    def __init__(self, path: Path, spot: Spot) -> None:
        self._path, self._spot = path, spot
        self._seen = 0  # lines
        self._part = 0  # the last part seen
        self._version = ""  # of the joined lines
        self._looked = -LOOK_S

    def lines(self) -> list[Any]:
        """Those since the last look, all of them where lines were taken away meanwhile; the store is asked every `LOOK_S` at most."""
        if time.monotonic() - self._looked < LOOK_S:
            return []
        self._looked = time.monotonic()
        flush(self._path)
        if _joined(self._spot)[0] != self._version:
            found = _read(self._spot)
            lines = disk.parsed(found.content)
            self._version, self._part, seen, self._seen = found.version, found.last, self._seen, len(lines)
            return lines[seen:] if seen <= len(lines) else lines
        fresh: list[Any] = []
        while True:
            try:
                fresh += disk.parsed(self._spot.store.get(_part(self._spot.key, self._part + 1))[0])
            except FileNotFoundError:
                self._seen += len(fresh)
                return fresh
            self._part += 1


def store_tail(path: Path) -> StoreTail | None:
    """What follows an append-only file that lies on a store; None for one on disk, which is followed by its size."""
    spot = locate(path)
    return None if spot is None else StoreTail(path, spot)
