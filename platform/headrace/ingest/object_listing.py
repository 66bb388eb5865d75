"""Which objects on S3 a source names: patterns to objects, as `files.py` has it for local files.

A listing tells each object's size and ETag, and both go with it to whoever reads it. The ETag is what the stage's fingerprint is made
from, so that nothing is downloaded to know whether work is done.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from headrace.config import ConfigError
from headrace.ingest.objects import SCHEME, StoredObject
from headrace.storage.object_store import client, explained


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
    store = client(place)
    from botocore.exceptions import BotoCoreError, ClientError

    asked = {"Bucket": bucket, "Prefix": prefix} | ({"Delimiter": delimiter} if delimiter else {})
    pages = store.get_paginator("list_objects_v2").paginate(**asked, PaginationConfig={"MaxItems": most, "PageSize": most})
    try:
        yield from pages
    except (BotoCoreError, ClientError) as error:
        raise explained(error, place, "s3:ListBucket") from None


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
