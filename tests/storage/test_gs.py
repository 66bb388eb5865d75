"""Google Cloud Storage through its own client and real HTTP: the same functions as on S3."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace import storage
from headrace.config import ConfigError
from headrace.pipeline import curate
from headrace.run import RunConfig


@pytest.fixture
def run(gs, bucket):
    return storage.attach(f"gs://{bucket}/runs/one")


def test_files_are_published_listed_fetched_and_removed(run, gs, tmp_path):
    with storage.scratch_folder(run / "data", "u0") as scratch:
        (scratch / "kind").mkdir()
        (scratch / "kind" / "a b.bin").write_bytes(b"12")
        entries = storage.publish_tree(scratch, run / "data")
    storage.write_json(run / "data" / "current.json", {"it": 1})
    assert sorted(gs.objects) == ["runs/one/data/current.json", "runs/one/data/kind/a b.bin"]
    assert storage.names(run / "data") == ["current.json", "kind"] and storage.names(run / "x") == []
    assert storage.breaches(run / "data", entries) == []
    path = run / "data" / "kind" / "a b.bin"
    assert storage.file_entry(run / "data", path) == entries[0]
    path.unlink()
    assert storage.local(path).read_bytes() == b"12"
    storage.remove(path)
    assert not storage.present(path) and storage.size(path) is None
    with pytest.raises(FileNotFoundError, match="gs://"):
        storage.read_bytes(path)
    storage.remove_tree(run / "data")
    assert gs.objects == {}


def test_what_came_is_not_what_was_written(run, gs):
    path = run / "a.bin"
    storage.write_bytes(path, b"12")
    gs.objects["runs/one/a.bin"]["content"] = b"21"
    with pytest.raises(storage.StorageError, match=r"gs://.*SHA-256"):
        storage.local(path)


def test_of_many_who_create_a_file_one_is_told_yes(run):
    path = run / "control" / "1.json"
    with ThreadPoolExecutor(64) as pool:
        told = list(pool.map(lambda number: storage.create(path, str(number).encode()), range(64)))
    assert told.count(True) == 1
    assert storage.read_bytes(path) == str(told.index(True)).encode()


def test_lines_are_parts_until_they_are_joined(run, gs):
    path = run / "events.jsonl"
    for step in (1, 2):
        storage.append_line(path, {"step": step})
        storage.flush()
    assert len(gs.objects) == 2
    storage.join(run)
    assert list(gs.objects) == ["runs/one/events.jsonl"]
    storage.rewrite_lines(path, [{"step": 1}])
    storage.append_line(path, {"step": 5})
    assert [line["step"] for line in storage.read_lines(path)] == [1, 5]


def test_a_store_that_stumbles_is_asked_again_and_one_that_refuses_is_not(run, gs, bucket):
    gs.failures = [503, 429]
    storage.write_json(run / "a.json", 1)
    assert storage.read_json(run / "a.json") == 1
    gs.failures, asked = [403], gs.asked
    why = rf"gs://{bucket}/runs/one/a\.json: the store refused it \(403: .*allow storage\.objects\.create .*GOOGLE_APPLICATION_CREDENTIALS"
    with pytest.raises(ConfigError, match=why):
        storage.write_json(run / "a.json", 2)
    assert gs.asked == asked + 1
    with pytest.raises(ConfigError, match=r"out = 'gs://other/run': .*no such bucket"):
        storage.writable_folder(storage.attach("gs://other/run"), "out")


def test_the_data_stages_leave_what_they_do_on_disk(run, tmp_path, bucket):
    draw = random.Random(7)
    texts = [" ".join(draw.choices(["river", "mill", "wheel", "grain", "flour", "bread"], k=draw.randrange(80, 200))) for _ in range(80)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    values = {
        "sources": [{"name": "mill", "kind": "prose", "path": str(tmp_path / "a.jsonl"), "filters": []}],
        "split": {"validation": 0.2},
        "tokens": {"vocab_size": 320, "sequence_length": 16},
    }
    found = []
    for out in (f"gs://{bucket}/runs/one", str(tmp_path / "disk")):
        tokens = curate(RunConfig.model_validate({"out": out, **values}), "local")
        found.append({entry["path"]: storage.local(tokens.folder / entry["path"]).read_bytes() for entry in tokens.entries})
        found[-1]["manifest"] = storage.read_bytes(tokens.folder / "manifest.json")
    assert found[0] == found[1]
