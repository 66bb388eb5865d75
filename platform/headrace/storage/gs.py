"""A bucket of Google Cloud Storage for a run's files.

Credentials, project and endpoint (STORAGE_EMULATOR_HOST) are found by Google's own client on the node that asks; none of them is part of a
configuration.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from headrace.config import ConfigError
from headrace.storage.object_store import StorageError
from headrace.storage.s3 import WRITER
from headrace.storage.stores import ABSENT, Head, Listed, absent, patiently

RETRY_S = 60.0  # of one request, by the client itself

T = TypeVar("T")


class GoogleStorage:
    """See `Store`."""

    def __init__(self, bucket: str) -> None:
        self._name = bucket

    def url(self, key: str) -> str:
        return f"gs://{self._name}/{key}"

    def head(self, key: str) -> Head | None:
        return self._answer(key, "storage.objects.get", lambda bucket: _found(bucket.get_blob(key, **_retry())))

    def get(self, key: str) -> tuple[bytes, Head]:
        found = self._answer(
            key, "storage.objects.get", lambda bucket: self._read(bucket, key, lambda blob, **of: blob.download_as_bytes(**of))
        )
        if found is None:
            raise absent(self.url(key))
        return found

    def put(self, key: str, content: bytes, metadata: Mapping[str, str], only: str | None = None) -> bool:
        writer = uuid.uuid4().hex
        wanted = None if only is None else 0 if only == ABSENT else int(only)

        def do(bucket: Any) -> bool:
            blob = bucket.blob(key)
            blob.metadata = {**metadata, WRITER: writer}
            blob.upload_from_string(content, "application/octet-stream", if_generation_match=wanted, **_retry())
            return True

        if self._answer(key, "storage.objects.create", do) is not None:
            return True
        # The condition was not met: maybe by ourselves, where the answer to an earlier attempt got lost.
        found = self.head(key)
        return found is not None and found.metadata.get(WRITER) == writer

    def upload(self, key: str, path: Path, metadata: Mapping[str, str]) -> None:
        def do(bucket: Any) -> bool:
            blob = bucket.blob(key)
            blob.metadata = dict(metadata)
            blob.upload_from_filename(str(path), "application/octet-stream", **_retry())
            return True

        self._answer(key, "storage.objects.create", do)

    def download(self, key: str, to: BinaryIO) -> Head:
        def do(blob: Any, **of: Any) -> None:
            to.seek(0)
            to.truncate()
            blob.download_to_file(to, **of)

        found = self._answer(key, "storage.objects.get", lambda bucket: self._read(bucket, key, do))
        if found is None:
            raise absent(self.url(key))
        return found[1]

    def listed(self, prefix: str, shallow: bool) -> Iterator[Listed]:
        def do(bucket: Any) -> list[Listed]:
            pages = bucket.list_blobs(prefix=prefix, delimiter="/" if shallow else None, **_retry())
            lines = [Listed(blob.name, blob.size, blob.updated.timestamp()) for blob in pages]
            return sorted([*lines, *(Listed(name, 0, 0.0) for name in pages.prefixes)])

        yield from self._answer(prefix, "storage.objects.list", do) or ()

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._answer(key, "storage.objects.delete", functools.partial(_delete, key=key))

    def _read(self, bucket: Any, key: str, read: Callable[..., T]) -> tuple[T, Head] | None:
        """The bytes and what is said of them, of one generation."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        blob = bucket.get_blob(key, **_retry())
        if blob is None:
            return None
        said = _head(blob)  # reading changes the blob
        try:
            return read(blob, if_generation_match=blob.generation, **_retry()), said
        except (NotFound, PreconditionFailed):
            raise StorageError(f"{self.url(key)}: replaced while it was read; run the same command again.") from None

    def _answer(self, key: str, permission: str, do: Callable[[Any], T]) -> T | None:
        """What the store answers; None where there is no such object, or a condition is not met."""
        place = self.url(key)
        bucket = _client(place).bucket(self._name)
        from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
        from requests.exceptions import RequestException

        def once() -> T | None:
            try:
                return do(bucket)
            except PreconditionFailed:
                return None
            except NotFound as error:
                if "bucket" in str(error).lower() and "does not exist" in str(error).lower():
                    raise ConfigError(f"{place}: no such bucket ({error.message}); correct its name.") from None
                return None
            except (GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse, RequestException, ConnectionError) as error:
                raise _explained(error, place, permission) from None

        return patiently(once)


def _explained(error: Exception, place: str, permission: str) -> Exception:
    from google.api_core.exceptions import ClientError, TooManyRequests
    from google.auth.exceptions import DefaultCredentialsError, RefreshError

    way = "GOOGLE_APPLICATION_CREDENTIALS, or the node's service account"
    if isinstance(error, ClientError) and not isinstance(error, TooManyRequests):
        why = f"{error.code}: {error.message}"
        return ConfigError(
            f"{place}: the store refused it ({why}); allow {permission} to the credentials in use, or choose others with {way}."
        )
    if isinstance(error, DefaultCredentialsError | RefreshError):
        return ConfigError(f"{place}: {error}. Look at {way}.")
    return StorageError(f"{place}: the store did not serve it ({error}); run the same command again later: what is done stays done.")


def _delete(bucket: Any, key: str) -> None:
    bucket.blob(key).delete(**_retry())


def _head(blob: Any) -> Head:
    return Head(blob.size, str(blob.generation), blob.metadata or {})


def _found(blob: Any) -> Head | None:
    return None if blob is None else _head(blob)


def _retry() -> dict[str, Any]:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return {"retry": DEFAULT_RETRY.with_timeout(RETRY_S)}


def _client(place: str) -> Any:
    try:
        import google.cloud.storage  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError(f"{place}: for gs:// paths, pip install 'headrace[gs]' (google-cloud-storage) on every node.") from None
    from google.auth.exceptions import GoogleAuthError

    try:
        return connected()
    except (GoogleAuthError, OSError) as error:  # OSError: no project is named
        raise _explained(error, place, "") from None


@functools.lru_cache(maxsize=1)
def connected() -> Any:
    """The client that Google's library makes, once."""
    from google.cloud import storage

    return storage.Client()
