"""Objects on S3, and on stores that speak its protocol: listed as the files of folders are, read as seekable files.

A listing tells each object's size and ETag, and both go with it to whoever reads it. The ETag is what the stage's fingerprint is made
from, so that nothing is downloaded to know whether work is done; and every read asks for that very content, so that an object which
changes under a run is refused and never mixed. Region, endpoint (AWS_ENDPOINT_URL for MinIO, R2, ...) and credentials are found by boto3's
own chain on the node that reads; none of them is part of a configuration.
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import io
import itertools
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from headrace.config import ConfigError

SCHEME = "s3://"
FIRST = 1 << 20  # bytes of a request at a place that was jumped to; requests that go on from there grow fourfold
BLOCK = 8 << 20  # bytes of a request at most; a reader holds one and the one behind it
ATTEMPTS = 8  # of a request, with botocore's growing pauses, where AWS_MAX_ATTEMPTS does not say
BODY_ATTEMPTS = 4  # of reading the answer to one, which botocore does not repeat
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
PASSING = ("RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests")


class StorageError(RuntimeError):
    """A store does not answer, or what lies there changed under the run: the same command may succeed later, exit code 75.

    No OSError, which readers take as a fault of the file: the file may be sound, and must not land in the quarantine.
    """


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


def find_objects(patterns: Sequence[str], field: str) -> list[tuple[str, StoredObject]]:
    """The objects that patterns name, each with its path below the longest folder without a wildcard that all of them share.

    A pattern is read as that of local files is: an object, a folder (all below it), or a glob (** = any depth); hidden names are left
    out. Where an object and a folder have one name, the folder is meant if the pattern ends with a slash. Keys that end with one are the
    markers of empty folders and hold no input.

    Raises:
        ConfigError: a pattern matches no object, its bucket does not exist or may not be listed, or boto3 is not installed.
        StorageError: the store does not answer.
    """
    roots: list[list[str]] = []
    found: dict[str, StoredObject] = {}
    for pattern in patterns:
        bucket, _, path = pattern.removeprefix(SCHEME).partition("/")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", bucket):  # not shown: it may be key:secret@bucket
            raise ConfigError(f"{field}: write s3://bucket/prefix/*.jsonl.zst; what follows s3:// here is no bucket's name.")
        place = f"{field} = {pattern!r}"
        root, matched = _matches(bucket, path, place)
        if not matched:
            raise ConfigError(_nothing(bucket, root, place))
        roots.append([bucket, *root])
        found |= {stored.url: stored for stored in matched}
    shared = len(os.path.commonprefix(roots))  # noqa: RUF071 - of lists: whole names are compared
    return [("/".join([stored.bucket, *stored.key.split("/")][shared:]), stored) for stored in found.values()]


def _matches(bucket: str, path: str, place: str) -> tuple[list[str], list[StoredObject]]:
    """The longest folder of a pattern without a wildcard as its names, and the objects that match."""
    magic = glob.has_magic(path)
    path = path.rstrip("/") if magic else path
    names = path.split("/")
    if path and not path.endswith("/"):
        named = [stored for stored in _listed(bucket, path, place, first_only=True) if stored.key == path]
        if named:  # also where its name holds [ or *
            return names[:-1], named
        path += "/"
    below = [stored for stored in _listed(bucket, path, place) if not _hidden(stored.key[len(path) :].split("/"))]
    if below or not magic:
        return (path.split("/") if below else names)[:-1], below
    fixed = next(number for number, name in enumerate(names) if glob.has_magic(name))
    literal = "".join(itertools.takewhile(lambda character: character not in "*?[", names[fixed]))
    # One folder is listed without what is below it where the pattern asks for no more: that may be millions of keys.
    shallow = fixed == len(names) - 1 and names[fixed] != "**"
    listed = _listed(bucket, "/".join([*names[:fixed], literal]), place, delimiter="/" if shallow else "")
    return names[:fixed], [stored for stored in listed if _fits(stored.key.split("/")[fixed:], names[fixed:])]


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the names of a path match a glob's, as `glob.glob(recursive=True)` has it."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        visible = itertools.takewhile(lambda count: not _hidden(names[:count]), range(len(names) + 1))
        return any(_fits(names[count:], patterns[1:]) for count in visible)
    if not names or (names[0].startswith(".") and not patterns[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])


def _hidden(names: Sequence[str]) -> bool:
    return any(name.startswith(".") for name in names)


def _listed(bucket: str, prefix: str, place: str, delimiter: str = "", first_only: bool = False) -> Iterator[StoredObject]:
    """Objects whose keys begin with `prefix`, in the order of their keys; with a delimiter, those that it does not occur in behind that."""
    for page in _pages(bucket, prefix, place, delimiter, 1 if first_only else None):
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):
                yield StoredObject(bucket, entry["Key"], entry["Size"], entry["ETag"].strip('"'))


def _pages(bucket: str, prefix: str, place: str, delimiter: str, most: int | None) -> Iterator[dict[str, Any]]:
    client = _client(place)
    from botocore.exceptions import BotoCoreError, ClientError

    asked = {"Bucket": bucket, "Prefix": prefix} | ({"Delimiter": delimiter} if delimiter else {})
    pages = client.get_paginator("list_objects_v2").paginate(**asked, PaginationConfig={"MaxItems": most, "PageSize": most})
    try:
        yield from pages
    except (BotoCoreError, ClientError) as error:
        raise _explained(error, place, "s3:ListBucket") from None


def _nothing(bucket: str, root: Sequence[str], place: str) -> str:
    prefix = "".join(f"{name}/" for name in root)
    names: list[str] = []
    for page in _pages(bucket, prefix, place, "/", 4):
        names += [entry["Key"] for entry in page.get("Contents", ())] + [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
    shown = sorted(name[len(prefix) :] for name in names if name != prefix)
    folder = f"{SCHEME}{bucket}/{prefix}"
    why = f"{folder} holds {', '.join(shown[:3])}{', ...' if len(shown) > 3 else ''}" if shown else f"{folder} holds no object"
    return (
        f"{place} matches no object: {why}. Correct it in the YAML or on the command line: 'sources.0.path=s3://bucket/prefix/*.jsonl.zst'."
    )


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
    client = _client(stored.url)
    from botocore.exceptions import BotoCoreError, ClientError

    length = min(length, stored.bytes - start)
    span = f"bytes={start}-{start + length - 1}"
    attempt = 1
    while True:
        try:
            answer = client.get_object(Bucket=stored.bucket, Key=stored.key, Range=span, IfMatch=f'"{stored.etag}"')
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 412, 416):
                raise _changed(stored) from None
            raise _explained(error, stored.url, "s3:GetObject") from None
        except BotoCoreError as error:
            raise _explained(error, stored.url, "s3:GetObject") from None
        if answer["ETag"].strip('"') != stored.etag:  # a store that knows no If-Match
            raise _changed(stored)
        try:
            content: bytes = answer["Body"].read()
        except BotoCoreError as error:
            if attempt == BODY_ATTEMPTS:
                raise _explained(error, stored.url, "s3:GetObject") from None
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


def _explained(error: Exception, place: str, permission: str) -> Exception:
    """An error of boto3 as one of ours: StorageError where the same command may succeed later, ConfigError where something must change."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        why = f"{code}: {error.response['Error'].get('Message', 'no reason given')}"
        if code in EXPIRED:
            return StorageError(f"{place}: the credentials have expired ({why}); renew them and run the same command again.")
        if status >= 500 or status == 429 or code in PASSING:
            return StorageError(f"{place}: the store did not serve it ({why}); run the same command again later: what is done stays done.")
        if code == "NoSuchBucket":
            return ConfigError(f"{place}: no such bucket at {_endpoint()}; correct its name, or AWS_ENDPOINT_URL for another store.")
        way = f"allow {permission} to them, or choose others with AWS_PROFILE"
        return ConfigError(f"{place}: the store refused it with the credentials that boto3 found ({why}); {way}.")
    if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError):
        return StorageError(f"{place}: {_endpoint()} does not answer ({error}); run the same command again later: what is done stays done.")
    # No credentials, a profile that does not exist, an endpoint that is no URL, a bucket's name that cannot be one.
    way = "AWS_PROFILE (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the node's role) and AWS_ENDPOINT_URL"
    return ConfigError(f"{place}: {error}. boto3 takes its settings from the environment of the node that reads: look at {way}.")


def _endpoint() -> str:
    return _connected().meta.endpoint_url


def _client(place: str) -> Any:
    """This process's client.

    Raises:
        ConfigError: boto3 is not installed, or what it finds in the environment makes no client.
    """
    try:
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError:
        raise ConfigError(f"{place}: to read from S3, pip install 'headrace[s3]' (boto3) on every node.") from None
    try:
        return _connected()
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
        raise _explained(error, place, "") from None


@functools.lru_cache(maxsize=1)
def _connected() -> Any:
    import boto3
    from botocore.config import Config as ClientConfig

    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))
    # Checksums of whole objects say nothing about ranges, and some stores send them all the same.
    settings = ClientConfig(retries={"mode": "standard", "total_max_attempts": attempts}, response_checksum_validation="when_required")
    return boto3.session.Session().client("s3", config=settings)
