"""Input on S3, read from a server that speaks its protocol on a loopback port."""

import gzip
import io
import json
import os
import random
import socket
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from headrace.artifact import read_table
from headrace.config import ConfigError
from headrace.control.exits import exit_code, sentence
from headrace.ingest import objects
from headrace.ingest.documents import ingest_unit
from headrace.ingest.files import find_files
from headrace.ingest.listing import estimated_bytes, fingerprint_inputs, plan_units
from headrace.ingest.objects import StorageError, StoredObject, open_place
from headrace.ingest.sample import write_sample
from headrace.ingest.source import Source

BUCKET = "corpus"
KEY = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMIexample"


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
        objects._connected().put_object(Bucket=BUCKET, Key=key, Body=content)

    def delete(self, key):
        objects._connected().delete_object(Bucket=BUCKET, Key=key)

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
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
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
        objects._connected.cache_clear()
        yield store
        objects._connected.cache_clear()
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.fixture
def store(server):
    """The server with an empty bucket."""
    client = objects._connected()
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


def source(path, **fields):
    return Source(name="web", kind="web", path=path, **fields)


def upload(store, folder, prefix):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(f"{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())
    store.forget()


def stored(store, content, key="x.bin"):
    store.put(key, content)
    (file,) = find_files(source(f"s3://{BUCKET}/{key}"))
    store.forget()
    return file.stored


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


def write_corpus(folder):
    """Every format, whole and damaged."""
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


def ingest(path, out, unit_bytes=None, **fields):
    units = plan_units([source(path, **fields)], unit_bytes)
    results = [ingest_unit(unit, out) for unit in units]
    return results, {kind: pa.concat_tables(read_table(out / kind / f"{unit['id']}.parquet") for unit in units) for kind in KINDS}


KINDS = ("documents", "quarantine", "files")
PATTERNS = [
    "",
    "/",
    "/*",
    "/*.jsonl*",
    "/**",
    "/**/*.parquet",
    "/*/w.warc",
    "/d*/**/w.*",
    "/[ab].*",
    "/note ?.txt",
    "/deep/er/*",
    "/plain.jsonl",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_names_on_s3_what_it_names_locally(store, tmp_path, pattern):
    write_corpus(tmp_path / "raw")
    for hidden in (".hidden.jsonl", ".git/x.jsonl", "deep/.h/x.jsonl", "part[1]*.jsonl"):
        (tmp_path / "raw" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "raw" / hidden).write_text("x")
    upload(store, tmp_path / "raw", "some/raw/")
    store.put("some/raw-not/x.jsonl", b"x")
    store.put("some/raw/", b"")  # markers of folders, as consoles leave them
    store.put("some/raw/deep/", b"")
    local = find_files(source(f"{tmp_path}/raw{pattern}"))
    found = find_files(source(f"s3://{BUCKET}/some/raw{pattern}"))
    assert local
    assert [(file.relative, file.bytes, file.format) for file in found] == [(file.relative, file.bytes, file.format) for file in local]
    assert [file.path for file in found] == [file.path.replace(f"{tmp_path}/raw", f"s3://{BUCKET}/some/raw") for file in local]


def test_a_name_that_holds_wildcards_several_patterns_and_a_whole_bucket(store):
    for key in ("a/x.jsonl", "a/part[1]*.jsonl", "a/part1x.jsonl", "b/x.jsonl", "c", "c/y.jsonl", "//odd"):
        store.put(key, b"x")

    def relative(*paths):
        return [file.relative for file in find_files(source([f"s3://{BUCKET}{path}" for path in paths]))]

    assert relative("/a/part[1]*.jsonl") == ["part[1]*.jsonl"]
    assert relative("/a", "/b/*.jsonl", "/a/x.jsonl") == ["a/part1x.jsonl", "a/part[1]*.jsonl", "a/x.jsonl", "b/x.jsonl"]
    assert relative("") == ["//odd", "a/part1x.jsonl", "a/part[1]*.jsonl", "a/x.jsonl", "b/x.jsonl", "c", "c/y.jsonl"]
    assert relative("/c") == ["c"]  # an object and a folder of one name
    assert relative("/c/") == ["y.jsonl"]


def test_a_listing_goes_on_past_a_page_and_not_below_its_folder(store):
    for number in range(10):
        store.put(f"many/{number}.jsonl", b"x")
        store.put(f"many/below/{number}.jsonl", b"x")
    store.forget()
    store.page = 3
    assert len(find_files(source(f"s3://{BUCKET}/many/*.jsonl"))) == 10
    assert len(store.asked) == 2 + 4  # the object and the folder of that very name; 10 keys and a folder
    assert len(find_files(source(f"s3://{BUCKET}/many"))) == 20


@pytest.mark.parametrize("unit_bytes", [None, 3000])
def test_the_same_objects_give_the_documents_of_local_files(store, tmp_path, unit_bytes):
    write_corpus(tmp_path / "raw")
    upload(store, tmp_path / "raw", "raw/")

    def shape(path):
        units = plan_units([source(path)], unit_bytes)
        return [[(piece["relative"], piece["start"], piece["stop"]) for piece in unit["pieces"]] for unit in units]

    assert shape(f"s3://{BUCKET}/raw") == shape(str(tmp_path / "raw"))
    results, local = ingest(str(tmp_path / "raw"), tmp_path / "local", unit_bytes)
    there, remote = ingest(f"s3://{BUCKET}/raw", tmp_path / "remote", unit_bytes)
    assert there == results
    assert local["documents"].num_rows > 1900
    reasons = {"truncated_stream", "corrupt_stream", "not_the_format", "bad_json", "empty_text"}
    assert set(local["quarantine"]["reason"].to_pylist()) == reasons
    for kind in KINDS:
        assert remote[kind].equals(local[kind]), kind


def test_a_sample_is_that_of_local_files(store, tmp_path):
    write_corpus(tmp_path / "raw")
    upload(store, tmp_path / "raw", "raw/")
    local, remote = source(str(tmp_path / "raw")), source(f"s3://{BUCKET}/raw")
    assert write_sample(local, tmp_path / "local.jsonl", 10_000) == write_sample(remote, tmp_path / "remote.jsonl", 10_000)
    assert (tmp_path / "local.jsonl").read_bytes() == (tmp_path / "remote.jsonl").read_bytes()
    assert sum(map(estimated_bytes, find_files(local))) == sum(map(estimated_bytes, find_files(remote)))


def test_the_fingerprint_follows_contents_and_nothing_is_downloaded_for_it(store):
    store.put("raw/a.jsonl", b"one")
    store.put("raw/b.jsonl", b"two")
    store.forget()
    before = fingerprint_inputs([source(f"s3://{BUCKET}/raw")])
    assert before[0] == ["web", "a.jsonl", 3, "etag:f97c5d29941bfb1b2fdab0874906ab82"]  # of one PUT it is the MD5
    assert {span for _, _, span in store.asked} == {None}
    store.put("raw/a.jsonl", b"one")
    assert fingerprint_inputs([source(f"s3://{BUCKET}/raw")]) == before
    store.put("raw/a.jsonl", b"One")
    after = fingerprint_inputs([source(f"s3://{BUCKET}/raw")])
    assert [entry[1] for entry, old in zip(after, before, strict=True) if entry != old] == ["a.jsonl"]


def test_units_are_planned_for_the_objects_that_the_stage_is_named_for(store):
    store.put("raw/a.jsonl", b"one")
    sources = [source(f"s3://{BUCKET}/raw")]
    inputs = fingerprint_inputs(sources)
    assert plan_units(sources, inputs=inputs) == plan_units(sources)
    store.put("raw/b.jsonl", b"two")
    with pytest.raises(StorageError, match=r"sources\.web\.path: b\.jsonl was written or removed"):
        plan_units(sources, inputs=inputs)
    store.delete("raw/b.jsonl")
    store.put("raw/a.jsonl", b"One")
    with pytest.raises(StorageError, match=r"a\.jsonl was written"):
        plan_units(sources, inputs=inputs)


def test_a_unit_holds_plain_values_and_no_credentials(store):
    store.put("raw/a.jsonl", b"one")
    (unit,) = plan_units([source(f"s3://{BUCKET}/raw")])
    assert json.loads(json.dumps(unit)) == unit
    assert unit["pieces"][0]["path"] == f"s3://{BUCKET}/raw/a.jsonl"
    assert KEY not in json.dumps(unit)
    assert SECRET not in json.dumps(unit)


def test_reads_at_any_place_give_the_object_s_bytes(store, monkeypatch):
    monkeypatch.setattr(objects, "FIRST", 1000)
    monkeypatch.setattr(objects, "BLOCK", 7000)
    content = random.Random(0).randbytes(100_000)
    there = stored(store, content)
    draw = random.Random(1)
    with open_place(there) as file, io.BytesIO(content) as local:
        for _ in range(300):
            if draw.random() < 0.3:
                seek = draw.choice([(draw.randrange(110_000), 0), (-draw.randrange(50_000), 2), (draw.randrange(500), 1)])
                assert file.seek(*seek) == local.seek(*seek)
            size = draw.choice([0, 1, 10, 2000, 30_000])
            assert file.read(size) == local.read(size)
            assert file.tell() == local.tell()
        file.seek(5)
        assert file.read() == content[5:]
        assert file.read(1) == b""
    assert max(store.spans()) <= 7000


def test_requests_grow_while_a_file_is_read_on(store, monkeypatch):
    monkeypatch.setattr(objects, "FIRST", 1000)
    monkeypatch.setattr(objects, "BLOCK", 8000)
    content = bytes(29_000)
    with open_place(stored(store, content)) as file:
        assert file.read() == content
    assert store.spans() == [1000, 4000, 8000, 8000, 8000]  # and each byte was asked for once
    store.forget()
    with open_place(stored(store, b"")) as file:
        assert file.read() == b""
    assert store.spans() == []


FORMATS = {
    "a.jsonl": lambda: jsonl(*["x" * 500] * 100),
    "a.jsonl.gz": lambda: gzip.compress(jsonl(*["x" * 500] * 100)),
    "a.jsonl.zst": lambda: zstandard.compress(jsonl(*["x" * 500] * 100)),
    "a.jsonl.lz4": lambda: lz4(jsonl(*["x" * 500] * 100)),
    "a.txt": lambda: b"some words",
    "a.warc.gz": lambda: b"".join(gzip.compress(record) for record in warc("one page", "another")),
    "a.warc": lambda: b"".join(warc("one page", "another")),
    "a.parquet": lambda: parquet(),
}


def parquet():
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [random.Random(number).randbytes(200).hex() for number in range(200)]}), sink, row_group_size=100)
    return sink.getvalue()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("how", ["overwritten", "overwritten on a store without conditions", "removed"])
def test_an_object_that_changes_under_a_run_is_refused(store, tmp_path, name, how):
    content = FORMATS[name]()
    store.put(f"raw/{name}", content)
    (unit,) = plan_units([source(f"s3://{BUCKET}/raw")])
    if how == "removed":
        store.delete(f"raw/{name}")
    else:
        store.put(f"raw/{name}", content[:-1] + b"?")
    store.faults = {"unconditional": 1000} if "without" in how else {}
    with pytest.raises(StorageError, match="changed or removed since this run listed it") as error:
        ingest_unit(unit, tmp_path)
    assert str(error.value).startswith(f"s3://{BUCKET}/raw/{name}: ")
    assert "Run the same command again" in str(error.value)


@pytest.mark.parametrize("name", FORMATS)
def test_a_store_that_fails_fails_the_unit_and_blames_no_file(store, impatient, tmp_path, name):
    store.put(f"raw/{name}", FORMATS[name]())
    (unit,) = plan_units([source(f"s3://{BUCKET}/raw")])
    store.faults = {"busy": 1000}
    with pytest.raises(StorageError, match="SlowDown") as error:
        ingest_unit(unit, tmp_path)
    assert exit_code(error.value) == 75
    assert sentence(error.value) == str(error.value)


@pytest.mark.parametrize("name", FORMATS)
def test_a_store_that_fails_in_the_middle_of_a_file_fails_the_unit_too(store, impatient, monkeypatch, tmp_path, name):
    content = FORMATS[name]()
    for limit in ("FIRST", "BLOCK"):
        monkeypatch.setattr(objects, limit, len(content) // 9 + 1)
    store.put(f"raw/{name}", content)
    (unit,) = plan_units([source(f"s3://{BUCKET}/raw")])
    whole = ingest_unit(unit, tmp_path / "whole")
    assert whole.rows_in == whole.rows_out > 0
    requests = len(store.spans())
    for served in range(1, requests):
        store.served, store.faults = served, {"busy": 1000}
        with pytest.raises(StorageError, match="SlowDown"):
            ingest_unit(unit, tmp_path / str(served))


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_a_passing_fault_is_tried_again(store, impatient, tmp_path, fault):
    store.put("raw/a.jsonl", jsonl("one", "two"))
    (unit,) = plan_units([source(f"s3://{BUCKET}/raw")])
    store.faults = {fault: 1}
    assert ingest_unit(unit, tmp_path).rows_out == 2
    assert store.faults[fault] == 0


def test_answers_that_keep_breaking_off_end_the_unit(store, impatient, tmp_path):
    store.put("raw/a.jsonl", jsonl("one", "two"))
    (unit,) = plan_units([source(f"s3://{BUCKET}/raw")])
    store.faults = {"cut": 1000}
    with pytest.raises(StorageError, match="does not answer"):
        ingest_unit(unit, tmp_path)
    assert len(store.spans()) == objects.BODY_ATTEMPTS


def test_what_matches_nothing_says_what_is_there(store):
    for key in ("data/a.jsonl", "data/b.jsonl", "data/c.jsonl", "data/below/d.jsonl"):
        store.put(key, b"x")
    for path, why in {
        "data/*.parquet": f"s3://{BUCKET}/data/ holds a.jsonl, b.jsonl, below/, ...",
        "data/x.jsonl": f"s3://{BUCKET}/data/ holds a.jsonl, b.jsonl, below/, ...",
        "dat?/*.parquet": f"s3://{BUCKET}/ holds data/",
        "none/": f"s3://{BUCKET}/none/ holds no object",
    }.items():
        with pytest.raises(ConfigError) as error:
            find_files(source([f"s3://{BUCKET}/data", f"s3://{BUCKET}/{path}"]))
        assert str(error.value).startswith(f"sources.web.path = 's3://{BUCKET}/{path}' matches no object: {why}. Correct it")


def test_a_bucket_that_does_not_exist_and_one_that_is_closed(store, tmp_path):
    with pytest.raises(ConfigError, match=r"sources\.web\.path = 's3://nowhere/x': no such bucket at http://127\.0\.0\.1:"):
        find_files(source("s3://nowhere/x"))
    store.put("raw/a.jsonl", b"x")
    (unit,) = plan_units([source(f"s3://{BUCKET}/raw")])
    store.refused = "AccessDenied"
    with pytest.raises(ConfigError, match=r"sources\.web\.path = .*AccessDenied.*allow s3:ListBucket"):
        find_files(source(f"s3://{BUCKET}/raw"))
    with pytest.raises(ConfigError, match=r"^s3://corpus/raw/a\.jsonl: .*AccessDenied.*allow s3:GetObject") as error:
        ingest_unit(unit, tmp_path)
    assert KEY not in str(error.value)
    store.refused = "ExpiredToken"
    with pytest.raises(StorageError, match=r"have expired .* renew them") as error:
        ingest_unit(unit, tmp_path)
    assert exit_code(error.value) == 75


@pytest.fixture
def client_anew():
    objects._connected.cache_clear()
    yield
    objects._connected.cache_clear()


def test_without_credentials_it_says_where_they_are_looked_for(server, monkeypatch, client_anew):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigError, match=r"sources\.web\.path = 's3://corpus/x': .*credentials.*AWS_PROFILE"):
        find_files(source(f"s3://{BUCKET}/x"))
    objects._connected.cache_clear()
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(ConfigError, match=r"profile \(absent\)"):
        find_files(source(f"s3://{BUCKET}/x"))


def test_a_store_that_is_not_there(server, monkeypatch, client_anew):
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:\d+ does not answer"):
            find_files(source(f"s3://{BUCKET}/x"))
    objects._connected.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(ConfigError, match=r"AWS_ENDPOINT_URL"):
        find_files(source(f"s3://{BUCKET}/x"))


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    for name in ("boto3", "botocore", "botocore.exceptions", "botocore.config"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"sources\.web\.path = 's3://corpus/x': .*pip install 'headrace\[s3\]'") as error:
        find_files(source(f"s3://{BUCKET}/x"))
    assert exit_code(error.value) == 2
    with pytest.raises(ConfigError, match=r"s3://b/k: .*on every node"):
        open_place(StoredObject("b", "k", 10, "e")).read()


@pytest.mark.parametrize(
    "address", ["s3://", "s3:///x", "s3://no bucket/x", f"s3://{KEY}:{SECRET}@bucket/x", f"s3://{KEY}:wJalr/XUtn@bucket/x"]
)
def test_an_address_without_a_bucket_is_refused_and_not_repeated(address):
    with pytest.raises(ConfigError, match=r"^sources\.web\.path: write s3://bucket/prefix") as error:
        find_files(source(address))
    assert KEY not in str(error.value)
