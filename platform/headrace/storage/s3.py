"""A bucket of S3, or of a store that speaks its protocol, for a run's files.

Bytes go through boto3, too, not through pyarrow.fs: Arrow's client drops an object's own metadata, in which a file's SHA-256 travels with
it, passes conditions over without a word, and finds its credentials in a way of its own, so that one of the two could be refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from headrace.storage.object_store import StorageError, client, explained
from headrace.storage.stores import ABSENT, Head, Listed, absent, patiently

BLOCK = 1 << 20
WRITER = "writer"  # metadata that tells our own write from another's after an answer that got lost
BATCH = 1000  # keys of one request to delete

T = TypeVar("T")


class S3:
    """See `Store`."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket

    def url(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def head(self, key: str) -> Head | None:
        found = self._answer(key, "s3:GetObject", lambda s3: _head(s3.head_object(Bucket=self._bucket, Key=key)))
        return found if isinstance(found, Head) else None

    def get(self, key: str) -> tuple[bytes, Head]:
        def do(s3: Any) -> tuple[bytes, Head]:
            answer = s3.get_object(Bucket=self._bucket, Key=key)
            return answer["Body"].read(), _head(answer)

        found = self._answer(key, "s3:GetObject", do)
        if found is None:
            raise absent(self.url(key))
        return found

    def put(self, key: str, content: bytes, metadata: Mapping[str, str], only: str | None = None) -> bool:
        writer = uuid.uuid4().hex
        settings: dict[str, Any] = {"Metadata": {**metadata, WRITER: writer}}
        if only is not None:
            settings |= {"IfNoneMatch": "*"} if only == ABSENT else {"IfMatch": only}

        def do(s3: Any) -> bool:
            s3.put_object(Bucket=self._bucket, Key=key, Body=content, **settings)
            return True

        if self._answer(key, "s3:PutObject", do) is not None:
            return True
        # A condition was not met: maybe by ourselves, where the answer to an earlier attempt got lost.
        found = self.head(key)
        return found is not None and found.metadata.get(WRITER) == writer

    def upload(self, key: str, path: Path, metadata: Mapping[str, str]) -> None:
        def do(s3: Any) -> bool:
            with path.open("rb") as handle:
                s3.upload_fileobj(handle, self._bucket, key, ExtraArgs={"Metadata": dict(metadata)})
            return True

        self._answer(key, "s3:PutObject", do)

    def download(self, key: str, to: BinaryIO) -> Head:
        def do(s3: Any) -> Head:
            to.seek(0)
            to.truncate()
            answer = s3.get_object(Bucket=self._bucket, Key=key)
            for block in answer["Body"].iter_chunks(BLOCK):
                to.write(block)
            return _head(answer)

        found = self._answer(key, "s3:GetObject", do)
        if found is None:
            raise absent(self.url(key))
        return found

    def listed(self, prefix: str, shallow: bool) -> Iterator[Listed]:
        token: dict[str, str] = {}
        delimiter = {"Delimiter": "/"} if shallow else {}
        while True:
            asked = {"Bucket": self._bucket, "Prefix": prefix, **delimiter, **token}
            page = self._asked(prefix, "s3:ListBucket", "list_objects_v2", asked)
            lines = [Listed(found["Key"], found["Size"], found["LastModified"].timestamp()) for found in page.get("Contents", ())]
            lines += [Listed(found["Prefix"], 0, 0.0) for found in page.get("CommonPrefixes", ())]
            yield from sorted(lines)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, keys: Iterable[str]) -> None:
        waiting = list(keys)
        for start in range(0, len(waiting), BATCH):
            some = waiting[start : start + BATCH]
            asked = {"Bucket": self._bucket, "Delete": {"Objects": [{"Key": key} for key in some], "Quiet": True}}
            answer = self._asked(some[0], "s3:DeleteObject", "delete_objects", asked)
            if wrong := answer.get("Errors"):
                told = {"Code": wrong[0]["Code"], "Message": wrong[0].get("Message", "")}
                raise self._explained({"Error": told, "ResponseMetadata": {"HTTPStatusCode": 403}}, wrong[0]["Key"])

    def _asked(self, key: str, permission: str, operation: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] | None = self._answer(key, permission, lambda s3: getattr(s3, operation)(**asked))
        return found or {}

    def _answer(self, key: str, permission: str, do: Callable[[Any], T]) -> T | None:
        """What the store answers; None where there is no such object, or a condition is not met."""
        place = self.url(key)
        s3 = client(place)
        from botocore.exceptions import BotoCoreError, ClientError

        def once() -> T | None:
            try:
                return do(s3)
            except ClientError as error:
                code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status == 412 or (status == 404 and code != "NoSuchBucket"):
                    return None
                if status == 409:  # two conditional writes at once: one of them is to ask again
                    raise StorageError(f"{place}: written by another at the same moment; run the same command again.") from None
                raise explained(error, place, permission) from None
            except BotoCoreError as error:
                raise explained(error, place, permission) from None

        return patiently(once)

    def _explained(self, response: Any, key: str) -> Exception:
        from botocore.exceptions import ClientError

        return explained(ClientError(response, "DeleteObjects"), self.url(key), "s3:DeleteObject")


def _head(answer: Mapping[str, Any]) -> Head:
    return Head(answer["ContentLength"], answer["ETag"], answer.get("Metadata", {}))
