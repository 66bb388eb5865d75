"""Input bytes wherever they lie: local files, and objects on S3, which are read as seekable files.

Every read asks for the very content that the listing saw, by its ETag, so that an object which changes under a run is refused and never
mixed.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from headrace.storage.object_store import StorageError, client, explained

SCHEME = "s3://"
FIRST = 1 << 20  # bytes of a request at a place that was jumped to; requests that go on from there grow fourfold
BLOCK = 8 << 20  # bytes of a request at most; a reader holds one and the one behind it
BODY_ATTEMPTS = 4  # of reading the answer to one, which botocore does not repeat


class StoredObject(NamedTuple):
    """One object as its listing found it."""

    bucket: str
    key: str
    bytes: int
    etag: str  # without its quotes

    @property
    def url(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


Place = str | StoredObject  # where input bytes lie: the path of a local file, or an object


def name_of(place: Place) -> str:
    """What messages call it, and what its extension is told from."""
    return place if isinstance(place, str) else place.url


def place_of(piece: Mapping[str, Any]) -> Place:
    """Where a piece of a work unit lies."""
    return StoredObject(**piece["object"]) if "object" in piece else piece["path"]


def size_of(place: Place) -> int:
    """Bytes as they are stored."""
    return Path(place).stat().st_size if isinstance(place, str) else place.bytes


def open_place(place: Place) -> BinaryIO:
    """The bytes of a local file or of an object, from the first on; seekable."""
    return Path(place).open("rb") if isinstance(place, str) else io.BufferedReader(ObjectReader(place), 64 << 10)


def for_arrow(place: Place) -> str | BinaryIO:
    """What Arrow is to open: a local file by its path, which it reads without Python."""
    return place if isinstance(place, str) else open_place(place)


class ObjectReader(io.RawIOBase):
    """An object as a seekable file: requests of growing size, and where they follow each other the next one is under way.

    Holds at most two blocks of 8 MiB, whatever is asked for.

    Raises:
        StorageError: the store does not answer, or the object is no longer the one that was listed.
        ConfigError: no permission to read it.
    """

    def __init__(self, stored: StoredObject) -> None:
        self._stored = stored
        self._position = 0
        self._block = memoryview(b"")
        self._start = 0  # of the block in the object
        self._step = FIRST
        self._ahead: tuple[int, Future[bytes]] | None = None  # where a block begins that is being fetched
        self._thread = ThreadPoolExecutor(1, "read-ahead")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stored.bytes}[whence])
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._stored.bytes:
            return 0
        if not self._start <= self._position < self._start + len(self._block):
            self._load()
        within = self._position - self._start
        piece = self._block[within : within + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _load(self) -> None:
        """Hold the block that begins at the position; fetch the one behind it if it goes on from the one before."""
        start, ahead = self._position, self._ahead
        follows = len(self._block) > 0 and start == self._start + len(self._block)
        self._step = min(4 * self._step, BLOCK) if follows else FIRST
        self._block, self._ahead = memoryview(b""), None
        if ahead and ahead[0] == start:
            content = ahead[1].result()
        else:
            if ahead:
                ahead[1].cancel()
            content = _fetched(self._stored, start, self._step)
        self._start, self._block = start, memoryview(content)
        following = start + len(content)
        if follows and following < self._stored.bytes:
            self._ahead = following, self._thread.submit(_fetched, self._stored, following, min(4 * self._step, BLOCK))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._block, self._ahead = memoryview(b""), None
        super().close()


def _fetched(stored: StoredObject, start: int, length: int) -> bytes:
    """Up to `length` bytes of an object; fewer at its end alone."""
    store = client(stored.url)
    from botocore.exceptions import BotoCoreError, ClientError

    length = min(length, stored.bytes - start)
    span = f"bytes={start}-{start + length - 1}"
    attempt = 1
    while True:
        try:
            answer = store.get_object(Bucket=stored.bucket, Key=stored.key, Range=span, IfMatch=f'"{stored.etag}"')
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 412, 416):
                raise _changed(stored) from None
            raise explained(error, stored.url, "s3:GetObject") from None
        except BotoCoreError as error:
            raise explained(error, stored.url, "s3:GetObject") from None
        if answer["ETag"].strip('"') != stored.etag:  # a store that knows no If-Match
            raise _changed(stored)
        try:
            content: bytes = answer["Body"].read()
        except BotoCoreError as error:
            if attempt == BODY_ATTEMPTS:
                raise explained(error, stored.url, "s3:GetObject") from None
            time.sleep(0.25 * 2**attempt)
            attempt += 1
            continue
        if len(content) != length:
            raise StorageError(f"{stored.url}: the store gave {len(content)} bytes for {span}; it does not serve ranges as S3 does.")
        return content


def _changed(stored: StoredObject) -> StorageError:
    return StorageError(
        f"{stored.url}: changed or removed since this run listed it ({stored.bytes} bytes, ETag {stored.etag}); nothing of the change was "
        f"read. Run the same command again once nobody writes to it: the input is listed anew then."
    )
