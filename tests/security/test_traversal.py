"""Names from configurations, manifests and archives do not lead out of the folder that they belong to."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from headrace import storage
from headrace.artifact import Artifact, StageError
from headrace.checkpoint import CheckpointError, Reader, read_manifest, verify
from headrace.checkpoint.named import place
from headrace.checkpoint.write import Writer
from headrace.config import ConfigError, validate
from headrace.decontaminate.presets import Benchmark
from headrace.evaluate.external import external_path
from headrace.ingest.documents import ingest_unit
from headrace.ingest.listing import plan_units
from headrace.ingest.source import Source
from headrace.inspection import stage_folder, unreferenced
from headrace.model import DecoderConfig

NAMES = ("../x", "../../etc/passwd", "/etc/passwd", "a/../../x", "a/b", "..", ".", "", "a\\..\\x", "a\0b", "..\n", "~/x", "%2e%2e/x", " /x")
PATHS = tuple(name for name in NAMES if name not in {"a/b", "~/x", "%2e%2e/x", " /x", "..\n"})  # the others are plain names below


@pytest.fixture
def checkpoint(tmp_path):
    config = DecoderConfig(layers=1, hidden=8, heads=2).sized(11, 4)
    (tmp_path / "tokenizer.json").write_text("{}")
    writer = Writer(tmp_path / "checkpoints", 1)
    writer.add("model", "embed.weight", torch.zeros(11, 8))
    about = {"model": config.model_dump(), "state": {"step": 1}, "config": {}, "layout": {}, "versions": {}}
    return writer.publish(about, tmp_path / "tokenizer.json")


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "data" / "ingest" / ("0" * 16)
    (folder / "documents").mkdir(parents=True)
    (folder / "documents" / "a").write_bytes(b"x")
    (tmp_path / "outside").write_bytes(b"x")
    entry = {"path": "documents/a", "bytes": 1, "sha256": ""}
    write_manifest(folder, {"units": [{"id": "u0", "files": [entry]}], "files": [], "fingerprint": "0" * 16})
    return folder


def write_manifest(folder, values):
    (folder / "manifest.json").write_text(json.dumps(values))


def read(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_names_that_become_files_are_plain(name):
    with pytest.raises(ConfigError, match="name"):
        validate(Source, {"name": name, "kind": "prose", "path": "x"}, "run.yaml")
    with pytest.raises(ConfigError, match="name"):
        external_path(Path("run"), name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"..", "."}])
def test_names_of_evaluation_sets_hold_no_slash(name):
    with pytest.raises(ConfigError, match="name"):
        validate(Benchmark, {"name": name, "path": "x"}, "run.yaml")


@pytest.mark.parametrize("step", ["../1", "-1", "1/../..", "1.0", "", " 1", "1\n"])
def test_a_step_is_a_number(step):
    assert place(f"run@{step}") == (Path(f"run@{step}").absolute(), None)  # then it is a folder's name, which the user gave


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("where", ["units", "files"])
def test_an_artifact_s_manifest_names_files_below_it(artifact, where, name):
    values = read(artifact)
    files = values["units"][0]["files"] if where == "units" else values["files"]
    files.append({"path": name, "bytes": 1, "sha256": ""})
    write_manifest(artifact, values)
    with pytest.raises(StageError, match=r"manifest\.json: names .*, which is no path below its folder; delete the file"):
        Artifact.open(artifact)


def test_a_link_out_of_an_artifact_is_a_breach(artifact, tmp_path):
    assert Artifact.open(artifact).breaches() == []
    (artifact / "documents" / "a").unlink()
    (artifact / "documents" / "a").symlink_to(tmp_path / "outside")
    assert Artifact.open(artifact).breaches() == [f"{artifact / 'documents' / 'a'}: a link out of its folder"]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("where", ["files", "tensors"])
def test_a_checkpoint_s_manifest_names_files_below_it(checkpoint, where, name):
    values = read(checkpoint)
    if where == "files":
        values["files"][0]["path"] = name
    else:
        values["tensors"]["embed.weight"]["file"] = name
    write_manifest(checkpoint, values)
    (breach,) = verify(checkpoint)
    assert "which is no path below its folder; it is not opened" in breach
    with pytest.raises(CheckpointError):
        Reader(checkpoint)


def test_a_link_out_of_a_checkpoint_is_not_opened(checkpoint, tmp_path):
    assert verify(checkpoint) == []
    (checkpoint / "model.safetensors").rename(tmp_path / "moved")
    (checkpoint / "model.safetensors").symlink_to(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="a link out of its folder"):
        read_manifest(checkpoint)


@pytest.mark.parametrize("name", ["../../other", "/etc", "", "0" * 15, "0" * 16 + "/.."])
def test_what_a_run_refers_to_is_an_artifact(artifact, tmp_path, name):
    storage.write_json(tmp_path / "data" / "current.json", {"ingest": name})
    with pytest.raises(ConfigError, match=r"current\.json: names .*, which is no artifact"):
        stage_folder(tmp_path, "ingest")


def test_clean_deletes_only_what_is_called_as_artifacts_are(artifact, tmp_path):
    precious = tmp_path / "home" / "precious"
    precious.mkdir(parents=True)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "home")
    (tmp_path / "data" / "ingest" / "notes").mkdir()
    storage.write_json(tmp_path / "data" / "current.json", {"ingest": "f" * 16})
    assert [path for path, _ in unreferenced(tmp_path)] == [artifact]


def members(name):
    """One archive of each kind with a member of that name, and the ending that announces it."""
    content = b"the text of a member\n"
    tar, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, name
        archive.addfile(link)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr(name.replace("\0", "_") or "_", content)
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + content * 20
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <{name}>\r\nWARC-Target-URI: file://{name}\r\nWARC-Filename: {name}\r\n"
    warc = (
        f"{head}WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: application/http;msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return {
        "a.tar": tar.getvalue(),
        "b.tar.gz": gzip.compress(tar.getvalue()),
        "c.zip": zipped.getvalue(),
        "d.warc": warc.encode() + body + b"\r\n\r\n",
        "e.jsonl": json.dumps({"id": name, "text": "the text of a line", "path": name, "url": name}).encode() + b"\n",
    }


@pytest.mark.parametrize("name", [name for name in NAMES if "\0" not in name and "\n" not in name])
def test_reading_archives_and_records_writes_nothing_but_the_unit_s_own_files(tmp_path, name):
    raw, out = tmp_path / "raw", tmp_path / "sandbox" / "out"
    raw.mkdir()
    for file, content in members(name).items():
        (raw / file).write_bytes(content)
    (raw / "secret.jsonl").symlink_to("/etc/hostname")  # a file that is linked to is read: the user's links are the user's
    (raw / "tree").symlink_to("/etc")  # a folder that is linked to is not
    units = plan_units([Source(name="mill", kind="prose", path=str(raw))])
    read = {piece["relative"] for unit in units for piece in unit["pieces"]}
    assert read == {*members(name), "secret.jsonl"}
    before = {path for path in tmp_path.rglob("*") if path.is_relative_to(raw)}
    for unit in units:
        ingest_unit(unit, out)
    written = {path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(raw)}
    assert written == {out / kind / f"{unit['id']}.parquet" for unit in units for kind in ("documents", "files", "quarantine")}
    assert {path for path in tmp_path.rglob("*") if path.is_relative_to(raw)} == before
