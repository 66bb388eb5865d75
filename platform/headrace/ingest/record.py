"""What a reader yields: a document's fields, a record that could not be read, or one that holds no document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import orjson

MAX_RECORD = 16 << 20  # bytes of one record; past it a record is quarantined and never held whole
FIRST_BYTES = 200  # bytes of an unreadable record that the quarantine shows

Reason = Literal[
    "bad_json",  # no JSON (NaN and nesting deeper than 1,024 included)
    "bad_utf8",  # no UTF-8, or a lone surrogate in a JSON string
    "bomb",  # expands to more than 200 times its compressed size
    "corrupt_stream",  # a checksum or the structure of the file is broken
    "empty_text",  # a text of white space, a file of nothing, a page without main content
    "missing_text",  # no such field or column, or it holds no string
    "not_object",  # JSON, but no object
    "not_the_format",  # not what the file's name says
    "nul_bytes",  # NUL characters in the text
    "too_long",  # more than MAX_RECORD
    "truncated_stream",  # the file ends in the middle
    "unreadable",  # the file could not be opened or read
]


class Record(NamedTuple):
    """One document as its file holds it."""

    id: str | None  # the input's own id, None where it has none
    offset: int  # of the record: decompressed bytes before it, or its row in a Parquet file
    text: str
    lang: str | None = None
    url: str | None = None
    meta: str | None = None  # JSON object, keys sorted


class Rejected(NamedTuple):
    """A record, or what is left of a whole file, that yields no document; it goes to the quarantine."""

    offset: int
    reason: Reason
    first_bytes: bytes  # at most FIRST_BYTES of the record; for an error of the whole file, what was wrong in words
    whole_file: bool = False  # the file could not be read to its end; documents before that point stand


class Ignored(NamedTuple):
    """A sound record that is no document: a WARC's requests, metadata, images, pages of errors."""

    offset: int


Item = Record | Rejected | Ignored
Items = Iterator[Item]


def rejected_file(offset: int, reason: Reason, why: str) -> Rejected:
    """The quarantine entry of a file that cannot be read from `offset` on."""
    return Rejected(offset, reason, why.encode("utf-8", "replace")[:FIRST_BYTES], whole_file=True)


def fault_of_text(text: str) -> Reason | None:
    """Why a decoded text is no document, None where it is one."""
    if "\0" in text:
        return "nul_bytes"
    if not text or text.isspace():
        return "empty_text"
    return None


def metadata(fields: dict[str, Any]) -> str | None:
    """The record's other fields as a JSON object with sorted keys, None where there are none.

    A field `meta` that holds an object gives its keys (the record's own win), so that documents written out and read again
    do not nest one level deeper each time.
    """
    inner = fields.pop("meta", None)
    if isinstance(inner, dict):
        fields = {**inner, **fields}
    elif inner is not None:
        fields["meta"] = inner
    if not fields:
        return None
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(fields, default=_plain, option=options).decode()


def _plain(value: Any) -> str:
    """What JSON has no type for (decimals, bytes, durations) as a string."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
