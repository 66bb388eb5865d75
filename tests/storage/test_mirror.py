"""Mirrors: what a run on a store is called, here and on other nodes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import storage
from headrace.config import ConfigError
from headrace.storage import mirror


def test_a_url_is_a_private_folder_below_the_cache(at_home):
    run = storage.folder("s3://bucket/some/run/")
    assert run == storage.attach("s3://bucket/some/run") == storage.folder(Path("s3://bucket/some/run"))
    assert run.is_relative_to(at_home) and run.name.startswith("run-")
    assert stat.S_IMODE(run.stat().st_mode) == stat.S_IMODE(run.parent.stat().st_mode) == 0o700
    assert storage.name(run / "data") == "s3://bucket/some/run/data"
    assert storage.is_remote(run) and storage.is_remote(run / "data")
    assert not storage.is_remote(run.with_name(f"{run.name}-other")) and not storage.is_remote(storage.machine(run))
    assert storage.folder("s3://bucket/other/run") != run != storage.folder("gs://bucket/some/run")


def test_a_path_is_itself(at_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.folder("runs/a") == tmp_path / "runs" / "a"
    assert storage.machine(tmp_path / "control") == tmp_path / "control"
    assert storage.local("some.parquet") == Path("some.parquet")
    assert storage.environment() == {}
    value = {"path": str(tmp_path)}
    assert storage.portable(value) is value


def test_the_same_bucket_at_another_endpoint_is_another_run(at_home, monkeypatch):
    first = storage.folder("s3://bucket/run")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere:9000")
    assert mirror.mirror_of("s3://bucket/run") != first


def test_paths_travel_between_nodes_with_other_caches(at_home, tmp_path):
    run = storage.attach("s3://bucket/some/run")
    unit = {
        "id": "u0",
        "documents": str(run / "documents" / "u0.parquet"),
        "verdicts": [run / "v"],
        "raw": str(tmp_path / "a.jsonl"),
        "n": 1,
    }
    sent = storage.portable(unit)
    assert str(run) not in str(sent)
    code = (
        "import json, sys; from headrace import storage\n"
        "unit = storage.resolved(json.loads(sys.argv[1]))\n"
        "print(json.dumps([unit, storage.name(__import__('pathlib').Path(unit['documents']))]))"
    )
    other = {**os.environ, **storage.environment(), "HEADRACE_CACHE": str(tmp_path / "other")}
    done = subprocess.run(
        [sys.executable, "-c", code, __import__("json").dumps(sent)], env=other, capture_output=True, text=True, check=True
    )
    there, called = __import__("json").loads(done.stdout)
    assert there["documents"].startswith(str(tmp_path / "other")) and there["documents"].endswith("documents/u0.parquet")
    assert (there["raw"], there["n"]) == (unit["raw"], 1)
    assert called == "s3://bucket/some/run/documents/u0.parquet"
    assert storage.resolved(sent) == {**unit, "verdicts": [str(run / "v")]}


def test_a_child_knows_the_mirrors_of_its_parent(at_home):
    run = storage.attach("s3://bucket/some/run")
    code = f"from headrace import storage; print(storage.name(__import__('pathlib').Path({str(run)!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "s3://bucket/some/run"


@pytest.mark.parametrize("url", ["s3://", "s3:///run", "gs://key:secret@bucket/run"])
def test_a_url_without_a_bucket_is_refused_and_not_repeated(at_home, url):
    with pytest.raises(ConfigError, match=r"no bucket's name") as refused:
        storage.folder(url)
    assert "secret" not in str(refused.value)


def test_a_cache_that_cannot_be_made_is_refused(at_home, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set HEADRACE_CACHE to a folder"):
        storage.folder("s3://bucket/run")


@pytest.mark.parametrize(("url", "library", "extra"), [("s3://b/r", "botocore", "s3"), ("gs://b/r", "google.cloud.storage", "gs")])
def test_a_library_that_is_missing_is_named_with_its_extra(at_home, monkeypatch, url, library, extra):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install 'headrace[{extra}]'")
    run = storage.folder(url)
    for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"pip install 'headrace\[{extra}\]'"):
        storage.names(run)
