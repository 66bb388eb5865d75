"""A store that changes under a run, fails, refuses or is not there: what becomes of the unit, and what is said."""

import os
import socket
import sys

import pytest

from headrace.config import ConfigError
from headrace.control.exits import exit_code, sentence
from headrace.ingest import objects
from headrace.ingest.documents import ingest_unit
from headrace.ingest.files import find_files
from headrace.ingest.listing import plan_units
from headrace.ingest.objects import StoredObject, open_place
from headrace.ingest.source import Source
from headrace.storage import object_store
from headrace.storage.object_store import StorageError

NAMES = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.jsonl.lz4", "a.txt", "a.warc.gz", "a.warc", "a.parquet"]
TWO = b'{"text": "one"}\n{"text": "two"}\n'


def source(path):
    return Source(name="web", kind="web", path=path)


@pytest.fixture
def client_anew():
    object_store.connected.cache_clear()
    yield
    object_store.connected.cache_clear()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["overwritten", "overwritten on a store without conditions", "removed"])
def test_an_object_that_changes_under_a_run_is_refused(store, content_of, tmp_path, name, how):
    content = content_of(name)
    store.put(f"raw/{name}", content)
    (unit,) = plan_units([source("s3://corpus/raw")])
    if how == "removed":
        store.delete(f"raw/{name}")
    else:
        store.put(f"raw/{name}", content[:-1] + b"?")
    store.faults = {"unconditional": 1000} if "without" in how else {}
    with pytest.raises(StorageError, match="changed or removed since this run listed it") as error:
        ingest_unit(unit, tmp_path)
    assert str(error.value).startswith(f"s3://corpus/raw/{name}: ")
    assert "Run the same command again" in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_store_that_fails_fails_the_unit_and_blames_no_file(store, impatient, content_of, tmp_path, name):
    store.put(f"raw/{name}", content_of(name))
    (unit,) = plan_units([source("s3://corpus/raw")])
    store.faults = {"busy": 1000}
    with pytest.raises(StorageError, match="SlowDown") as error:
        ingest_unit(unit, tmp_path)
    assert exit_code(error.value) == 75
    assert sentence(error.value) == str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_store_that_fails_in_the_middle_of_a_file_fails_the_unit_too(store, impatient, monkeypatch, content_of, tmp_path, name):
    content = content_of(name)
    for limit in ("FIRST", "BLOCK"):
        monkeypatch.setattr(objects, limit, len(content) // 9 + 1)
    store.put(f"raw/{name}", content)
    (unit,) = plan_units([source("s3://corpus/raw")])
    whole = ingest_unit(unit, tmp_path / "whole")
    assert whole.rows_in == whole.rows_out > 0
    requests = len(store.spans())
    for served in range(1, requests):
        store.served, store.faults = served, {"busy": 1000}
        with pytest.raises(StorageError, match="SlowDown"):
            ingest_unit(unit, tmp_path / str(served))


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_a_passing_fault_is_tried_again(store, impatient, tmp_path, fault):
    store.put("raw/a.jsonl", TWO)
    (unit,) = plan_units([source("s3://corpus/raw")])
    store.faults = {fault: 1}
    assert ingest_unit(unit, tmp_path).rows_out == 2
    assert store.faults[fault] == 0


def test_answers_that_keep_breaking_off_end_the_unit(store, impatient, tmp_path):
    store.put("raw/a.jsonl", TWO)
    (unit,) = plan_units([source("s3://corpus/raw")])
    store.faults = {"cut": 1000}
    with pytest.raises(StorageError, match="does not answer"):
        ingest_unit(unit, tmp_path)
    assert len(store.spans()) == objects.BODY_ATTEMPTS


def test_a_bucket_that_does_not_exist_and_one_that_is_closed(store, tmp_path):
    with pytest.raises(ConfigError, match=r"sources\.web\.path = 's3://nowhere/x': no such bucket at http://127\.0\.0\.1:"):
        find_files(source("s3://nowhere/x"))
    store.put("raw/a.jsonl", b"x")
    (unit,) = plan_units([source("s3://corpus/raw")])
    store.refused = "AccessDenied"
    with pytest.raises(ConfigError, match=r"sources\.web\.path = .*AccessDenied.*allow s3:ListBucket"):
        find_files(source("s3://corpus/raw"))
    with pytest.raises(ConfigError, match=r"^s3://corpus/raw/a\.jsonl: .*AccessDenied.*allow s3:GetObject") as error:
        ingest_unit(unit, tmp_path)
    assert os.environ["AWS_ACCESS_KEY_ID"] not in str(error.value)
    store.refused = "ExpiredToken"
    with pytest.raises(StorageError, match=r"have expired .* renew them") as error:
        ingest_unit(unit, tmp_path)
    assert exit_code(error.value) == 75


def test_without_credentials_it_says_where_they_are_looked_for(server, monkeypatch, client_anew):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigError, match=r"sources\.web\.path = 's3://corpus/x': .*credentials.*AWS_PROFILE"):
        find_files(source("s3://corpus/x"))
    object_store.connected.cache_clear()
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(ConfigError, match=r"profile \(absent\)"):
        find_files(source("s3://corpus/x"))


def test_a_store_that_is_not_there(server, monkeypatch, client_anew):
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:\d+ does not answer"):
            find_files(source("s3://corpus/x"))
    object_store.connected.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(ConfigError, match=r"AWS_ENDPOINT_URL"):
        find_files(source("s3://corpus/x"))


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    for name in ("boto3", "botocore", "botocore.exceptions", "botocore.config"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"sources\.web\.path = 's3://corpus/x': .*pip install 'headrace\[s3\]'") as error:
        find_files(source("s3://corpus/x"))
    assert exit_code(error.value) == 2
    with pytest.raises(ConfigError, match=r"s3://b/k: .*on every node"):
        open_place(StoredObject("b", "k", 10, "e")).read()
