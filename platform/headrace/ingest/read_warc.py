"""WARC and WET: web pages as their main text.

Documents are responses and resources of HTML or plain text (2xx only) and WET's conversions; framing and HTTP by fastwarc, extraction
by resiliparse (Bevendorff et al. 2018, "Elastic ChatNoir"). The older ARC format is not read: it is quarantined as not the format.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
from resiliparse.parse.encoding import detect_mime

from headrace.ingest import html
from headrace.ingest.objects import Place, name_of
from headrace.ingest.record import (
    FIRST_BYTES,
    MAX_RECORD,
    Ignored,
    Item,
    Items,
    Reason,
    Record,
    Rejected,
    fault_of_text,
    metadata,
    rejected_file,
)
from headrace.ingest.streams import StreamError, chunks, compression, next_member

HTML_TYPES = ("text/html", "application/xhtml+xml")
BEGINS = b"WARC/"
WEB = ("http:", "https:")  # resources of other schemes are a crawler's own: logs (metadata:), screenshots (urn:)
DOCUMENTS = (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.conversion)
TEXTS = (*HTML_TYPES, "text/plain")


class _Stream:
    """A file's decompressed bytes as fastwarc reads them; a fault ends them and stays here to be looked at."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.failure: Exception | None = None
        self.position = 0
        self.ended = False
        self._pieces = pieces
        self._piece = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        while not self._piece and not self.ended:
            try:
                self._piece = memoryview(next(self._pieces, b""))
            except Exception as error:  # not only a StreamError: fastwarc might not let it through as it is
                self.failure = error
            self.ended = not self._piece
        taken = bytes(self._piece[: size if size >= 0 else None])
        self._piece = self._piece[len(taken) :]
        self.position += len(taken)
        return taken

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError("decompressed bytes are read once, in order")

    def close(self) -> None:
        pass


class _Cut(Exception):
    """The file ends inside a record."""


def read_warc(path: Place) -> Items:
    """Documents, rejected and ignored records in the file's order; an offset counts the decompressed bytes before the record.

    A gzip member that is broken costs what is in it, and reading goes on at the next member that begins a record: WARC files hold one
    record a member. In other compressions the rest of the file is lost.
    """
    start, base = 0, 0
    while True:
        stream = _Stream(chunks(path, start, whole_members=True))
        yield from _items(stream, base)
        failure = stream.failure
        if failure is None:
            return
        if not isinstance(failure, StreamError):
            raise failure
        base += stream.position
        following = None
        if failure.reason == "corrupt_stream" and compression(name_of(path)) == "gzip":
            following = next_member(path, failure.member, BEGINS)
        if following is None:
            yield rejected_file(base, failure.reason, str(failure))
            return
        yield Rejected(base, failure.reason, str(failure).encode()[:FIRST_BYTES])
        start = following


def _items(stream: _Stream, base: int) -> Items:
    """Items of one stream, up to its end or fault; what is wrong with the stream itself is the caller's to say."""
    offset, seen = base, False
    try:
        records = iter(ArchiveIterator(stream, parse_http=False))
    except BaseException as error:
        _raise_unless_of_library(error)
        records = iter(())
    while True:
        try:
            record = next(records, None)
            item = None
            if record is not None:
                offset = base + record.stream_pos
                item = _item(record, offset)
        except BaseException as error:
            _raise_unless_of_library(error)
            if stream.failure is None:
                reason: Reason = "truncated_stream" if isinstance(error, _Cut) else "corrupt_stream" if seen else "not_the_format"
                yield rejected_file(offset, reason, f"{type(error).__name__}: {error}")
            return
        if item is None:
            if not seen and stream.failure is None:
                reason = "not_the_format" if stream.position else "empty_text"
                yield rejected_file(base, reason, "no WARC record")
            return
        seen = True
        yield item


def _raise_unless_of_library(error: BaseException) -> None:
    """Re-raise what no record can be blamed for. A panic in the Rust of fastwarc or resiliparse is no Exception, but is the record's."""
    if isinstance(error, MemoryError) or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
        raise error


def _item(record: WarcRecord, offset: int) -> Item:
    """What one record gives; its bytes are used up."""
    if record.headers.get("Content-Length") is None:
        raise _Cut("a record without Content-Length")
    if record.record_type not in DOCUMENTS or (record.record_type == WarcRecordType.resource and not _url(record).startswith(WEB)):
        _pass_over(record)
        return Ignored(offset)
    if record.content_length > MAX_RECORD:
        if record.is_http:
            record.parse_http()
        content_type = _content_type(record)
        _pass_over(record)
        return (
            Rejected(offset, "too_long", str(record.headers.get("WARC-Target-URI")).encode()[:FIRST_BYTES])
            if content_type in TEXTS
            else Ignored(offset)
        )
    block = record.reader.read(record.content_length) if record.content_length else b""
    if len(block) < record.content_length:
        raise _Cut(f"a record of {record.content_length} bytes has {len(block)}")
    try:
        return _document(record, block, offset)
    except BaseException as error:
        _raise_unless_of_library(error)
        return Rejected(offset, "corrupt_stream", block[:FIRST_BYTES])


def _pass_over(record: WarcRecord, taken: int = 0) -> None:
    """Use up the rest of a record of which `taken` bytes are read, so that a cut is noticed here."""
    length = record.content_length
    consumed = taken + (record.reader.consume() if length > taken else 0)
    if consumed < length:
        raise _Cut(f"a record of {length} bytes has {consumed}")


def _url(record: WarcRecord) -> str:
    """The record's address; some writers of WARC 1.0 put it in angle brackets."""
    return (record.headers.get("WARC-Target-URI") or "").strip("<>")


def _content_type(record: WarcRecord) -> str | None:
    declared = record.http_content_type if record.is_http else record.headers.get("Content-Type")
    return declared.partition(";")[0].strip().lower() if declared else None


def _document(record: WarcRecord, block: bytes, offset: int) -> Item:
    content, charset = block, None
    if record.is_http:
        record.set_bytes_content(block)
        record.parse_http("all")
        if not 200 <= (record.http_headers.status_code or 0) < 300:
            return Ignored(offset)
        content, charset = record.reader.read(MAX_RECORD + 1), record.http_charset
    elif record.record_type == WarcRecordType.response:
        return Ignored(offset)  # an answer of some other protocol: DNS, FTP
    content_type = _content_type(record) or (detect_mime(content) if content else None)
    if content_type not in TEXTS:
        return Ignored(offset)
    if len(content) > MAX_RECORD:
        return Rejected(offset, "too_long", content[:FIRST_BYTES])
    if record.record_type == WarcRecordType.conversion:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            return Rejected(offset, "bad_utf8", content[:FIRST_BYTES])
    else:
        text = html.decode(content, charset)
        if content_type in HTML_TYPES:
            if html.depth(content) > html.MAX_DEPTH:
                return Rejected(offset, "bomb", content[:FIRST_BYTES])
            text = html.main_text(text)
    fault = fault_of_text(text)
    if fault is not None:
        return Rejected(offset, fault, content[:FIRST_BYTES])
    headers = record.headers
    fields = {
        "content_type": content_type,
        "date": headers.get("WARC-Date"),
        "languages": headers.get("WARC-Identified-Content-Language"),
    }
    meta = metadata({key: value for key, value in fields.items() if value})
    return Record(record.record_id, offset, text, None, _url(record) or None, meta)
