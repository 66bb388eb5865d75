"""Objects on S3, read as local files are: by whoever reads a format and at any place."""

import io
import random

import pyarrow as pa
import pytest

from headrace.artifact import read_table
from headrace.ingest import objects
from headrace.ingest.documents import ingest_unit
from headrace.ingest.files import find_files
from headrace.ingest.listing import estimated_bytes, plan_units
from headrace.ingest.objects import open_place
from headrace.ingest.sample import write_sample
from headrace.ingest.source import Source

KINDS = ("documents", "quarantine", "files")


def source(path):
    return Source(name="web", kind="web", path=path)


def stored(store, content, key="x.bin"):
    store.put(key, content)
    (file,) = find_files(source(f"s3://corpus/{key}"))
    store.forget()
    return file.stored


def ingest(path, out, unit_bytes):
    units = plan_units([source(path)], unit_bytes)
    results = [ingest_unit(unit, out) for unit in units]
    return results, {kind: pa.concat_tables(read_table(out / kind / f"{unit['id']}.parquet") for unit in units) for kind in KINDS}


@pytest.mark.parametrize("unit_bytes", [None, 3000])
def test_the_same_objects_give_the_documents_of_local_files(store, corpus, tmp_path, unit_bytes):
    store.upload(corpus, "raw/")

    def shape(path):
        units = plan_units([source(path)], unit_bytes)
        return [[(piece["relative"], piece["start"], piece["stop"]) for piece in unit["pieces"]] for unit in units]

    assert shape("s3://corpus/raw") == shape(str(tmp_path / "raw"))
    results, local = ingest(str(tmp_path / "raw"), tmp_path / "local", unit_bytes)
    there, remote = ingest("s3://corpus/raw", tmp_path / "remote", unit_bytes)
    assert there == results
    assert local["documents"].num_rows > 1900
    reasons = {"truncated_stream", "corrupt_stream", "not_the_format", "bad_json", "empty_text"}
    assert set(local["quarantine"]["reason"].to_pylist()) == reasons
    for kind in KINDS:
        assert remote[kind].equals(local[kind]), kind


def test_a_sample_is_that_of_local_files(store, corpus, tmp_path):
    store.upload(corpus, "raw/")
    local, remote = source(str(tmp_path / "raw")), source("s3://corpus/raw")
    assert write_sample(local, tmp_path / "local.jsonl", 10_000) == write_sample(remote, tmp_path / "remote.jsonl", 10_000)
    assert (tmp_path / "local.jsonl").read_bytes() == (tmp_path / "remote.jsonl").read_bytes()
    assert sum(map(estimated_bytes, find_files(local))) == sum(map(estimated_bytes, find_files(remote)))


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
