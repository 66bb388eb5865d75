"""JSON Lines: one object a line, plain or compressed, whole or a byte range of a plain file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

from headrace.ingest.objects import Place
from headrace.ingest.record import MAX_RECORD, Items, Reason, Record, Rejected, fault_of_text, metadata, rejected_file
from headrace.ingest.streams import Line, StreamError, byte_range, chunks, kind_of, lines

BOM = b"\xef\xbb\xbf"


def read_jsonl(path: Place, text_field: str, start: int = 0, stop: int | None = None) -> Items:
    """Documents and rejected lines of a file, in its order.

    Records read before a fault of the stream stand: they are whole records, and a file that ends early is one quarantine entry more.

    Args:
        start, stop: bytes of an uncompressed file; a line belongs to the range in which its first byte lies. stop None = the whole file.
    """
    for item in file_lines(path, start, stop):
        if isinstance(item, Rejected):
            yield item
        else:
            yield _parsed(item, text_field)


def file_lines(path: Place, start: int = 0, stop: int | None = None) -> Iterator[Line | Rejected]:
    """Lines of a file that hold more than white space, those too long and what is wrong with the file as rejections."""
    offset = start
    seen = False
    try:
        for line in lines(chunks(path), MAX_RECORD) if stop is None else _range_lines(path, start, stop):
            seen = True
            offset = line.offset + len(line.first_bytes)
            content = line.content
            if content is None:
                yield Rejected(line.offset, "too_long", line.first_bytes)
                continue
            if line.offset == 0 and content.startswith(BOM):
                content = content[len(BOM) :]
            if content and not content.isspace():
                yield Line(line.offset, content, line.first_bytes)
    except StreamError as error:
        yield rejected_file(offset, error.reason, str(error))
        return
    if not seen and stop is None:
        yield rejected_file(0, "empty_text", "an empty file")


def _range_lines(path: Place, start: int, stop: int) -> Iterator[Line]:
    """Lines that begin in [start, stop) of an uncompressed file."""
    first = b"".join(byte_head(path))
    found = kind_of(first)
    if found is not None:
        if start == 0:  # said once, by the range that holds the file's first byte
            raise StreamError("not_the_format", f"named uncompressed, but the content is {found}")
        return
    # A line begins at `start` exactly if the byte before it is a newline: so begin one byte early and drop what that byte's line ends with.
    begin = max(0, start - 1)
    for line in lines(byte_range(path, begin, stop), MAX_RECORD, begin):
        if line.offset >= stop:
            return
        if line.offset >= start:
            yield line


def byte_head(path: Place) -> Iterator[bytes]:
    """The first 16 bytes of a file."""
    for block in byte_range(path, 0, 15):
        yield block[:16]
        return


def _parsed(line: Line, text_field: str) -> Record | Rejected:
    content = line.content
    assert content is not None
    try:
        fields: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        return Rejected(line.offset, _fault_of_json(content), line.first_bytes)
    if not isinstance(fields, dict):
        return Rejected(line.offset, "not_object", line.first_bytes)
    text = fields.pop(text_field, None)
    if not isinstance(text, str):
        return Rejected(line.offset, "missing_text", line.first_bytes)
    fault = fault_of_text(text)
    if fault is not None:
        return Rejected(line.offset, fault, line.first_bytes)
    return record_of(line.offset, text, fields)


def record_of(offset: int, text: str, fields: dict[str, Any]) -> Record:
    """A document out of its text and the record's other fields: `id`, `lang` and `url` where they are strings (or a number, for `id`)."""
    identity = fields.get("id")
    if isinstance(identity, str | int) and not isinstance(identity, bool) and identity != "":
        del fields["id"]
        identity = str(identity)
    else:
        identity = None
    return Record(identity, offset, text, _string(fields, "lang"), _string(fields, "url"), metadata(fields))


def _string(fields: dict[str, Any], name: str) -> str | None:
    """The field if it holds a string or null, taken out of `fields`; anything else stays there, as metadata."""
    value = fields.get(name)
    if value is None or isinstance(value, str):
        fields.pop(name, None)
        return value or None
    return None


def _fault_of_json(content: bytes) -> Reason:
    """Why a line is no JSON, by what a user would have to mend."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return "bad_utf8"
    if b"\0" in content:
        return "nul_bytes"
    if b"\\ud" in content or b"\\uD" in content:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return "bad_json"
        return "bad_utf8"  # sound but for a surrogate without its other half, which no UTF-8 can say
    return "bad_json"
