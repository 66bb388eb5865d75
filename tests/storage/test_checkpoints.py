"""Checkpoints on a store: written by several writers, made seen by their manifest, read from an empty mirror, swept."""

from __future__ import annotations

import shutil
import threading

import pytest
import torch

from headrace import storage
from headrace.checkpoint import Reader, committed, newest_valid, verify
from headrace.checkpoint.canonical import digests
from headrace.checkpoint.named import find
from headrace.checkpoint.retention import forget, sweep
from headrace.checkpoint.write import Draft, Files

ABOUT = {"model": {}, "state": {"step": 5}, "config": {}, "layout": {}, "versions": {}}
TENSORS = [("model", f"blocks.{number}.weight", torch.arange(12.0) + number) for number in range(6)]


@pytest.fixture
def root(s3, bucket):
    return storage.attach(f"s3://{bucket}/runs/one") / "train" / "checkpoints"


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"it": "is small"}')
    return path


def write(root, step, tokenizer, writers=2):
    begun = Draft.begin(root, step)

    def by(number):
        draft = Draft(root, step, begun.token)  # as on another node, which knows the token alone
        files = Files(draft, number, writers)
        for kind, name, tensor in TENSORS[number::writers]:
            files.add(kind, name, tensor + step)
        files.finish()
        return files.part([name for _, name, _ in TENSORS])

    if begun.remote:
        shutil.rmtree(begun.folder)  # as on another node, where nobody made it
    others = [threading.Thread(target=lambda number=number: begun.record(number, by(number))) for number in range(1, writers)]
    for other in others:
        other.start()
    part = by(0)
    return begun.publish([part, *begun.parts({number: f"writer {number}" for number in range(1, writers)}, lambda: 60.0)], ABOUT, tokenizer)


def test_a_checkpoint_is_there_with_its_manifest_and_read_from_an_empty_mirror(root, tokenizer, keys, tmp_path):
    assert committed(root) == []
    folder = write(root, 5, tokenizer)
    on_disk = write(tmp_path / "disk", 5, tokenizer)
    assert committed(root) == [folder] and verify(folder) == []
    assert len(keys()) == 4 and all("/step-00000005/" in key for key in keys())
    shutil.rmtree(root)
    assert digests(folder) == digests(on_disk)
    assert {path.name for path in folder.iterdir()} == {name for name in storage.sizes(folder) if name.startswith("model")}
    assert find(root.parents[1], 5) == folder


def test_what_was_cut_short_is_no_checkpoint_and_is_swept(root, tokenizer, keys):
    folder = write(root, 5, tokenizer)
    whole = keys()
    draft = Draft.begin(root, 10)
    files = Files(draft)
    files.add("model", "blocks.0.weight", torch.zeros(3))
    files.finish()
    draft.record(1, files.part(()))
    storage.write_bytes(folder / "model-of-another-attempt.safetensors", b"1")
    assert committed(root) == [folder]
    sweep(root)
    assert keys() == whole


def test_a_second_attempt_at_a_step_leaves_the_first_as_it_is(root, tokenizer):
    folder = write(root, 5, tokenizer)
    before = storage.read_json(folder / "manifest.json")
    write(root, 5, tokenizer, writers=1)
    assert storage.read_json(folder / "manifest.json") == before and verify(folder) == []


def test_a_broken_one_is_passed_over_and_replaced(root, tokenizer):
    write(root, 5, tokenizer)
    folder = write(root, 10, tokenizer)
    broken = next(name for name in storage.sizes(folder) if name.startswith("model"))
    storage.write_bytes(folder / broken, b"1")
    newest, breaches = newest_valid(root)
    assert newest == root / "step-00000005" and len(breaches) == 1 and "its manifest says" in breaches[0]
    write(root, 10, tokenizer)
    assert newest_valid(root) == (folder, [])
    with Reader(folder) as reader:
        assert torch.equal(reader.get("blocks.3.weight"), torch.arange(12.0) + 13)


def test_what_is_deleted_goes_from_the_store_and_from_other_machines(root, tokenizer, keys):
    for step in (5, 10):
        write(root, step, tokenizer)
    copy = root / "step-00000010" / "model.safetensors"
    assert forget(root, 5) == ["step-00000010"]
    copy.parent.mkdir()
    copy.write_bytes(b"a copy that another machine holds")
    assert committed(root) == [root / "step-00000005"] and not [key for key in keys() if "step-00000010" in key]
    with Reader(root / "step-00000005"):
        assert [path.name for path in root.iterdir()] == ["step-00000005"]
