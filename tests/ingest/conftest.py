"""A store that speaks S3's protocol on a loopback port, and input of every format."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from headrace.ingest import objects
from headrace.storage import object_store

BUCKET = "corpus"


class Store:
    """moto's S3 with what it was asked, and with faults where a test sets them."""

    def __init__(self, application):
        self._application = application
        self.forget()

    def forget(self):
        self.asked = []  # (method, path, range)
        self.faults = {}  # kind of fault: how many GETs of objects are to meet it
        self.served = 0  # GETs of objects that come before the faults
        self.refused = ""  # an S3 error code with which everything is answered
        self.page = 1000  # keys in a page of a listing

    def __call__(self, environ, start_response):
        method, path, span = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE")
        self.asked.append((method, path, span))
        fault = None
        if span and self.served:
            self.served -= 1
        elif span:
            fault = next((kind for kind, left in self.faults.items() if left), None)
        if fault is not None:
            self.faults[fault] -= 1
        if self.refused or fault == "busy":
            code, status = (self.refused, "403 Forbidden") if self.refused else ("SlowDown", "503 Slow Down")
            body = f"<Error><Code>{code}</Code><Message>told so by the test</Message></Error>".encode()
            start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        if fault == "cut":  # the connection ends in the middle of the answer
            return [b"".join(self._application(environ, start_response))[:-1]]
        if "list-type" in environ["QUERY_STRING"] and "max-keys" not in environ["QUERY_STRING"]:
            environ["QUERY_STRING"] += f"&max-keys={self.page}"
        if fault == "unconditional":
            del environ["HTTP_IF_MATCH"]
        return self._application(environ, start_response)

    def put(self, key, content):
        object_store.connected().put_object(Bucket=BUCKET, Key=key, Body=content)

    def upload(self, folder, prefix):
        """Every file below a folder, under a prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())
        self.forget()

    def delete(self, key):
        object_store.connected().delete_object(Bucket=BUCKET, Key=key)

    def spans(self):
        """Bytes of each ranged GET."""
        edges = [span.removeprefix("bytes=").split("-") for _, _, span in self.asked if span]
        return [int(stop) - int(start) + 1 for start, stop in edges]


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'headrace[s3]'")
    moto = pytest.importorskip("moto.moto_server.werkzeug_app", reason="moto's server is not installed: pip install 'headrace[test]'")
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, type, message, *args):
            pass

    store = Store(moto.DomainDispatcherApplication(moto.create_backend_app))
    serving = make_server("127.0.0.1", 0, store, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        settings = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{serving.server_port}",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIexample",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "2",
            "NO_PROXY": "127.0.0.1",
        }
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in settings.items():
            patch.setenv(name, value)
        object_store.connected.cache_clear()
        yield store
        object_store.connected.cache_clear()
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.fixture
def store(server):
    """The server with an empty bucket."""
    client = object_store.connected()
    client.create_bucket(Bucket=BUCKET)
    server.forget()
    yield server
    server.forget()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(objects.time, "sleep", lambda seconds: None)


def jsonl(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def warc(*pages):
    records = []
    for number, page in enumerate(pages):
        body = page.encode()
        head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:uuid:{number}>\r\nWARC-Target-URI: http://e.org/{number}\r\n"
        head += f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        records.append(head.encode() + body + b"\r\n\r\n")
    return records


def lz4(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as out:
        out.write(content)
    return sink.getvalue().to_pybytes()


def parquet():
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [random.Random(number).randbytes(200).hex() for number in range(200)]}), sink, row_group_size=100)
    return sink.getvalue()


@pytest.fixture
def corpus(tmp_path):
    """A folder of files of every format, whole and damaged."""
    folder = tmp_path / "raw"
    (folder / "deep" / "er").mkdir(parents=True)
    texts = [f"text {number} " + "word " * (number % 50) for number in range(400)]
    lines = jsonl(*texts)
    (folder / "plain.jsonl").write_bytes(lines + b"{broken\n" + b'{"text": "named", "id": "own", "lang": "en"}\n')
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines[:5000]) + gzip.compress(jsonl("second member")))
    (folder / "b.jsonl.zst").write_bytes(zstandard.compress(lines))
    (folder / "c.jsonl.lz4").write_bytes(lz4(lines))
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-200])
    (folder / "cut.jsonl.zst").write_bytes(zstandard.compress(lines)[:-20])
    (folder / "cut.parquet").write_bytes(b"PAR1" + bytes(100))
    (folder / "empty.jsonl").touch()
    (folder / "no.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (folder / "note ①.txt").write_text("one text")
    (folder / "lines.unknown").write_text("another text\nof two lines\n")
    pq.write_table(pa.table({"text": texts, "n": range(400)}), folder / "table.parquet", row_group_size=50)
    members = [gzip.compress(record) for record in warc(*(f"page {number}" for number in range(5)))]
    members[2] = members[2][:20] + bytes(8) + members[2][28:]
    (folder / "deep" / "er" / "w.warc.wet.gz").write_bytes(b"".join(members))
    (folder / "deep" / "w.warc").write_bytes(b"".join(warc("plain page")))
    return folder


@pytest.fixture(scope="session")
def content_of():
    """A function: what a whole file of this name holds."""
    lines = jsonl(*["x" * 500] * 100)
    pages = warc("one page", "another")
    made = {
        "a.jsonl": lines,
        "a.jsonl.gz": gzip.compress(lines),
        "a.jsonl.zst": zstandard.compress(lines),
        "a.jsonl.lz4": lz4(lines),
        "a.txt": b"some words",
        "a.warc.gz": b"".join(map(gzip.compress, pages)),
        "a.warc": b"".join(pages),
        "a.parquet": parquet(),
    }
    return made.__getitem__
