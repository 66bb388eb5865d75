"""Plain text: a file is a document (`text`), or each of its lines is one (`lines`)."""

from __future__ import annotations

from headrace.ingest.objects import Place
from headrace.ingest.read_jsonl import BOM, file_lines
from headrace.ingest.record import FIRST_BYTES, MAX_RECORD, Items, Record, Rejected, fault_of_text, rejected_file
from headrace.ingest.streams import StreamError, chunks


def read_text(path: Place) -> Items:
    """The file as one document: UTF-8, without its byte order mark, line ends as they are."""
    held = bytearray()
    try:
        for piece in chunks(path):
            held += piece
            if len(held) > MAX_RECORD:
                yield rejected_file(0, "too_long", f"more than {MAX_RECORD} bytes for one document; read it with format: lines")
                return
    except StreamError as error:
        # Half a text is no document, unlike the whole records before the end of a truncated JSON Lines file.
        yield rejected_file(len(held), error.reason, str(error))
        return
    yield _document(0, bytes(held))


def read_lines(path: Place, start: int = 0, stop: int | None = None) -> Items:
    """Each line that holds more than white space as a document; byte ranges as in `read_jsonl`."""
    for line in file_lines(path, start, stop):
        if isinstance(line, Rejected):
            yield line
        else:
            content = line.content
            assert content is not None
            yield _document(line.offset, content.removesuffix(b"\r"))


def _document(offset: int, content: bytes) -> Record | Rejected:
    if offset == 0:
        content = content.removeprefix(BOM)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return Rejected(offset, "bad_utf8", content[:FIRST_BYTES])
    fault = fault_of_text(text)
    return Rejected(offset, fault, content[:FIRST_BYTES]) if fault else Record(None, offset, text)
