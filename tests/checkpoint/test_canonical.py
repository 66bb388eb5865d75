import hashlib
import json
from pathlib import Path

import pytest
import torch

from headrace.checkpoint import CheckpointError, Reader, committed, digests, load_model, newest_valid, read_manifest, verify
from headrace.checkpoint import write as writing
from headrace.checkpoint.write import Writer
from headrace.model import DecoderConfig

CONFIG = DecoderConfig(layers=1, hidden=8, heads=2).sized(11, 4)
ABOUT = {"model": CONFIG.model_dump(), "state": {"step": 1}, "config": {}, "layout": {}, "versions": {}}
WEIGHTS = {"embed.weight": torch.arange(88.0).view(11, 8), "head.norm.weight": torch.ones(8), "head.weight": torch.zeros(11, 8)}


def write(root: Path, step: int, tokenizer: Path) -> Path:
    writer = Writer(root, step)
    for name, weight in WEIGHTS.items():
        writer.add("model", name, weight)
    writer.add("optimizer", "exp_avg/embed.weight", WEIGHTS["embed.weight"] / 2)
    writer.add("optimizer", "step", torch.tensor(3.0))
    return writer.publish(ABOUT, tokenizer)


def test_what_was_written_is_read(tmp_path: Path, tokenizer: Path) -> None:
    folder = write(tmp_path / "root", 1, tokenizer)
    assert folder == tmp_path / "root" / "step-00000001"
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "tokenizer.json",
    ]
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["step-00000001"], "nothing is left aside"
    config, weights = load_model(folder)
    assert config == CONFIG and weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], weight) for name, weight in WEIGHTS.items())
    with Reader(folder) as reader:
        assert float(reader.get("step")) == 3.0
        assert torch.equal(reader.get("exp_avg/embed.weight"), WEIGHTS["embed.weight"] / 2)
        with pytest.raises(CheckpointError, match=r"holds no tensor 'exp_avg/head\.weight'"):
            reader.get("exp_avg/head.weight")
    assert (folder / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    assert verify(folder) == []


def test_equal_content_gives_equal_bytes(tmp_path: Path, tokenizer: Path) -> None:
    one, other = (write(tmp_path / name, 1, tokenizer) for name in ("one", "other"))
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_many_tensors_are_cut_into_several_files(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FILE_BYTES", 400)
    folder = write(tmp_path / "root", 1, tokenizer)
    assert {tensor["file"] for tensor in read_manifest(folder)["tensors"].values()} == {
        "model.safetensors",
        "model-00001.safetensors",
        "optimizer.safetensors",
    }
    assert verify(folder) == []
    assert torch.equal(load_model(folder)[1]["head.weight"], WEIGHTS["head.weight"])


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["absent", "torn", "flipped", "emptied"])
def test_every_damage_is_found_and_the_one_before_is_taken(tmp_path: Path, tokenizer: Path, file: str, damage: str) -> None:
    root = tmp_path / "root"
    good, bad = write(root, 1, tokenizer), write(root, 2, tokenizer)
    path = bad / file
    content = bytearray(path.read_bytes())
    if damage == "absent":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-3] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(b"")
    (breach,) = verify(bad)
    assert str(path) in breach
    assert newest_valid(root) == (good, [breach])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "headrace-checkpoint", "version": 2}'])
def test_a_manifest_that_is_none_is_a_breach(tmp_path: Path, tokenizer: Path, content: bytes) -> None:
    folder = write(tmp_path / "root", 1, tokenizer)
    (folder / "manifest.json").write_bytes(content)
    assert len(verify(folder)) == 1
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        read_manifest(folder)


def test_every_damaged_file_is_named(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FILE_BYTES", 1)
    folder = write(tmp_path / "root", 1, tokenizer)
    (folder / "model-00001.safetensors").unlink()
    (folder / "optimizer.safetensors").write_bytes(b"torn")
    first, second = verify(folder)
    assert "model-00001.safetensors: missing" in first and "optimizer.safetensors: 4 bytes, its manifest says" in second
    assert newest_valid(tmp_path / "root") == (None, [first, second])


def test_a_digest_is_that_of_the_bytes(tmp_path: Path, tokenizer: Path) -> None:
    found = digests(write(tmp_path / "root", 1, tokenizer))
    assert found.keys() == {*WEIGHTS, "exp_avg/embed.weight", "step"}
    assert found["head.norm.weight"] == hashlib.sha256(bytes.fromhex("0000803f") * 8).hexdigest()


def test_a_manifest_that_lists_another_shape_is_a_breach(tmp_path: Path, tokenizer: Path) -> None:
    folder = write(tmp_path / "root", 1, tokenizer)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tensors"]["embed.weight"]["shape"] = [8, 11]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert verify(folder) == [f"{folder / 'model.safetensors'}: embed.weight has shape [11, 8], its manifest says [8, 11]"]


def test_only_what_was_published_is_committed(tmp_path: Path, tokenizer: Path) -> None:
    root = tmp_path / "root"
    assert committed(root) == [] and newest_valid(root) == (None, [])
    unfinished = Writer(root, 9)
    unfinished.add("model", "embed.weight", WEIGHTS["embed.weight"])
    folders = [write(root, step, tokenizer) for step in (100, 20, 3)]
    (root / "step-00000200").mkdir()
    (root / "notes").mkdir()
    assert committed(root) == sorted(folders)
    unfinished.discard()
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_a_broken_checkpoint_of_the_same_step_is_replaced(tmp_path: Path, tokenizer: Path) -> None:
    folder = write(tmp_path / "root", 1, tokenizer)
    (folder / "model.safetensors").write_bytes(b"torn")
    (folder / "leftover").touch()
    assert write(tmp_path / "root", 1, tokenizer) == folder
    assert verify(folder) == [] and not (folder / "leftover").exists()
    with pytest.raises(CheckpointError, match="never committed"):
        read_manifest(tmp_path / "root" / "step-00000002")
