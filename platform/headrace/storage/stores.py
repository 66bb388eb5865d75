"""What a run's folder asks of an object store, and which store a URL names."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

from headrace.config import ConfigError
from headrace.storage.object_store import StorageError

ABSENT = "*"  # as a version: the object must not be there
ATTEMPTS = 5  # of one thing, each with the client's own attempts inside
PAUSE_S = 0.25, 8.0  # before the second attempt, and at most; each pause is drawn between half of it and the whole
SCHEMES = ("s3://", "gs://")

T = TypeVar("T")


class Head(NamedTuple):
    """What a store says of an object."""

    bytes: int
    version: str  # changes with the content: S3's ETag, the generation of Google's store
    metadata: Mapping[str, str]  # as its writer gave it


class Listed(NamedTuple):
    """One line of a listing."""

    key: str  # ends with a slash where it stands for all keys below it
    bytes: int
    modified: float  # seconds since the epoch, by the store's clock


class Store(Protocol):
    """One bucket. All calls are safe from many threads.

    Raises, everywhere:
        ConfigError: no permission, no such bucket, no credentials; with bucket, key, action and way out.
        StorageError: it does not answer, after bounded attempts with jitter.
    """

    def url(self, key: str) -> str:
        """What messages call an object."""

    def head(self, key: str) -> Head | None:
        """None: there is no such object."""

    def get(self, key: str) -> tuple[bytes, Head]:
        """A small object. Raises FileNotFoundError."""

    def put(self, key: str, content: bytes, metadata: Mapping[str, str], only: str | None = None) -> bool:
        """Publish a small object; whether it was.

        Args:
            only: replace this version of it and no other; ABSENT: create it. None: whatever is there.
        """

    def upload(self, key: str, path: Path, metadata: Mapping[str, str]) -> None:
        """Publish a file of any size."""

    def download(self, key: str, to: BinaryIO) -> Head:
        """Write an object's bytes into an empty file. Raises FileNotFoundError."""

    def listed(self, prefix: str, shallow: bool) -> Iterator[Listed]:
        """Objects whose keys begin so, in order of their keys; shallow: what is below a further slash as one line."""

    def delete(self, keys: Iterable[str]) -> None:
        """Take objects away; those that are not there are none of its concern."""


@functools.lru_cache
def store_of(bucket_url: str) -> Store:
    """This process's client of a bucket, "s3://bucket" or "gs://bucket"."""
    scheme, bucket = bucket_url[:5], bucket_url[5:]
    if scheme == "s3://":
        from headrace.storage.s3 import S3

        return S3(bucket)
    from headrace.storage.gs import GoogleStorage

    return GoogleStorage(bucket)


def split_url(url: str) -> tuple[str, str]:
    """ "s3://bucket/some/prefix/" as ("s3://bucket", "some/prefix").

    Raises:
        ConfigError: no bucket is named.
    """
    scheme = next(scheme for scheme in SCHEMES if url.startswith(scheme))
    bucket, _, prefix = url.removeprefix(scheme).partition("/")
    if not bucket or any(character in bucket for character in ":@ "):  # not shown: it may be key:secret@bucket
        raise ConfigError(f"write {scheme}bucket/prefix: what follows {scheme} here is no bucket's name.")
    return scheme + bucket, "/".join(name for name in prefix.split("/") if name)


def patiently(do: Callable[[], T]) -> T:
    """What `do` gives, tried again while the store does not answer."""
    pause, longest = PAUSE_S
    for _ in range(ATTEMPTS - 1):
        try:
            return do()
        except StorageError:
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(longest, 2 * pause)
    return do()


def absent(url: str) -> FileNotFoundError:
    return FileNotFoundError(f"{url}: no such object")
