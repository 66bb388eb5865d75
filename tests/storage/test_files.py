"""Files of a run on a store: published once, read as they are now, fetched and verified."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace import storage
from headrace.config import ConfigError
from headrace.storage import object_store


@pytest.fixture
def run(s3, bucket):
    return storage.attach(f"s3://{bucket}/runs/one")


def test_what_is_written_is_on_the_store_and_read_from_there(run, keys, bucket):
    storage.write_json(run / "data" / "current.json", {"ingest": "a"})
    assert keys() == ["runs/one/data/current.json"]
    object_store.connected().put_object(Bucket=bucket, Key="runs/one/data/current.json", Body=b'{"ingest": "b"}')
    assert storage.read_json(run / "data" / "current.json") == {"ingest": "b"}
    assert storage.present(run / "data" / "current.json") and not storage.present(run / "data" / "other.json")
    assert storage.size(run / "data" / "current.json") == 15 and storage.size(run / "data" / "other.json") is None
    with pytest.raises(FileNotFoundError, match=rf"s3://{bucket}/runs/one/x.json"):
        storage.read_json(run / "x.json")


def test_names_and_sizes_are_those_of_a_folder(run):
    for name in ("step-00000010/manifest.json", "step-00000010/model.safetensors", "step-00000020/model.safetensors", "notes"):
        storage.write_bytes(run / "train" / "checkpoints" / name, b"12")
    root = run / "train" / "checkpoints"
    assert storage.names(root) == ["notes", "step-00000010", "step-00000020"]
    assert storage.names(run / "nothing") == []
    assert storage.holding(root, "manifest.json") == [root / "step-00000010"]
    assert storage.sizes(root / "step-00000010") == {"manifest.json": 2, "model.safetensors": 2}
    assert list(storage.touched(root)) == ["notes"]
    storage.remove(root / "notes")
    storage.remove_tree(root / "step-00000010")
    assert storage.names(root) == ["step-00000020"]


def test_of_many_who_create_a_file_one_is_told_yes(run):
    path = run / "control" / "attempts" / "train" / "1.json"
    with ThreadPoolExecutor(64) as pool:
        told = list(pool.map(lambda number: storage.create(path, str(number).encode()), range(64)))
    assert told.count(True) == 1
    assert storage.read_bytes(path) == str(told.index(True)).encode()


def test_who_created_a_file_and_lost_the_answer_is_told_yes(run, s3):
    storage.names(run)
    s3.every["lost"] = 2
    assert storage.create(run / "a", b"1")
    assert s3.met["lost"] == 1
    s3.forget()
    assert not storage.create(run / "a", b"2")


def test_a_tree_is_published_with_the_entries_that_it_has_on_disk(run, keys, tmp_path):
    found = []
    for root in (tmp_path / "disk", run / "data"):
        with storage.scratch_folder(root, "u0") as scratch:
            storage.write_json(scratch / "kind" / "b", 22)
            (scratch / "kind" / "a").write_bytes(b"1")
            found.append(storage.publish_tree(scratch, root))
    assert found[0] == found[1]
    assert keys() == ["runs/one/data/kind/a", "runs/one/data/kind/b"]
    assert storage.breaches(run / "data", found[0]) == []
    storage.remove(run / "data" / "kind" / "a")
    storage.write_bytes(run / "data" / "kind" / "b", b"longer")
    assert [breach.split(": ", 1)[1] for breach in storage.breaches(run / "data", found[0])] == [
        "listed in the manifest, but absent",
        "6 bytes, the manifest says 3",
    ]


def test_a_file_is_fetched_once_and_verified(run, s3, bucket):
    path = run / "data" / "tokens" / "u0.bin"
    storage.write_bytes(path, bytes(range(256)) * 5000)
    assert not path.exists()
    assert storage.local(path) == path and path.read_bytes() == bytes(range(256)) * 5000
    s3.forget()
    storage.local(path)
    assert s3.asked == 0
    path.unlink()
    # Another content under the digest of the first: what a store that lost a write would give.
    told = object_store.connected().head_object(Bucket=bucket, Key="runs/one/data/tokens/u0.bin")["Metadata"]
    object_store.connected().put_object(Bucket=bucket, Key="runs/one/data/tokens/u0.bin", Body=b"other", Metadata=told)
    with pytest.raises(storage.StorageError, match=r"5 bytes, SHA-256 \w+\.\.\. came, where 5 bytes, \w+\.\.\. were written"):
        storage.local(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["busy", "reset", "short"])
def test_a_store_that_stumbles_is_asked_again(run, s3, kind):
    path = run / "data" / "u0.bin"
    s3.every[kind] = 2
    storage.write_bytes(path, bytes(3 << 20))
    for _ in range(4):
        path.unlink(missing_ok=True)
        assert storage.local(path).read_bytes() == bytes(3 << 20)
        assert storage.names(run / "data") == ["u0.bin"]
    assert s3.met[kind] > 0


def test_a_store_that_is_down_is_given_up_in_a_sentence(run, s3):
    s3.every["busy"] = 1
    with pytest.raises(storage.StorageError, match=r"s3://.*/x\.json: the store did not serve it \(SlowDown: .*run the same command again"):
        storage.read_json(run / "x.json")


def test_what_is_not_allowed_is_named(run, s3, bucket):
    s3.refused = ("PUT", "")
    why = rf"s3://{bucket}/runs/one/a\.json: the store refused it .*AccessDenied.*allow s3:PutObject to them, or .* AWS_PROFILE"
    with pytest.raises(ConfigError, match=why):
        storage.write_json(run / "a.json", 1)
    with pytest.raises(ConfigError, match=rf"out = 's3://{bucket}/runs/one': s3://.*s3:PutObject"):
        storage.writable_folder(run, "out")
    s3.refused = ("GET", "")
    with pytest.raises(ConfigError, match=r"s3:ListBucket"):
        storage.names(run)


def test_a_bucket_that_is_not_there_is_named(s3, at_home):
    run = storage.attach("s3://no-such-bucket/run")
    with pytest.raises(ConfigError, match=r"out = .*no such bucket"):
        storage.writable_folder(run, "out")


def test_scratch_stays_on_this_machine(run, keys):
    with storage.scratch_folder(run, "u0") as scratch:
        storage.write_json(scratch / "index.json", {})
        assert storage.read_json(scratch / "index.json") == {}
    storage.write_json(storage.machine(run / "control") / "cluster.json", {})
    assert keys() == [] and not Path(scratch).exists()


def test_copies_of_what_is_gone_are_forgotten(run):
    root = run / "train" / "checkpoints"
    for name in ("step-00000010", "step-00000020"):
        storage.write_bytes(root / name / "model.safetensors", b"1")
        storage.local(root / name / "model.safetensors")
    storage.drop_copies(root, [root / "step-00000020"])
    assert [path.name for path in root.iterdir()] == ["step-00000020"]
