"""Several writers of one checkpoint, each a thread here; as processes they are in tests/train/test_save.py."""

from __future__ import annotations

import contextlib
import json
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headrace.checkpoint import Reader, digests, read_manifest, verify
from headrace.checkpoint import write as writing
from headrace.checkpoint.write import Draft, Files, Kind, Part, Writer

ABOUT = {"model": {}, "state": {"step": 5}, "config": {}, "layout": {}, "versions": {}}
TENSORS: list[tuple[Kind, str, Tensor]] = [
    *(("model", f"blocks.{number}.weight", torch.arange(12.0) + number) for number in range(12)),
    *(("optimizer", f"exp_avg/blocks.{number}.weight", torch.arange(12.0) - number) for number in range(12)),
    ("optimizer", "step", torch.tensor(5.0)),
]
NAMES = [name for _, name, _ in TENSORS]


def written(draft: Draft, writer: int, writers: int, tensors: list[tuple[Kind, str, Tensor]]) -> Part:
    files = Files(draft, writer, writers)
    for kind, name, tensor in tensors:
        files.add(kind, name, tensor)
    files.finish()
    return files.part(NAMES)


def by_writers(root: Path, writers: int, tokenizer: Path) -> Path:
    """Step 5, its tensors dealt out in turn."""
    draft = Draft.begin(root, 5)
    others = {number: f"writer {number}" for number in range(1, writers)}
    for number in others:
        draft.record(number, written(draft, number, writers, TENSORS[number::writers]))
    first = written(draft, 0, writers, TENSORS[::writers])
    return draft.publish([first, *draft.parts(others, lambda: 10.0)], ABOUT, tokenizer)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Inside, no file of this process may become larger than 500 bytes; no fixture, for pytest's own log would fall under it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("writers", [2, 3, 30])
def test_what_is_stored_does_not_depend_on_who_wrote_it(
    tmp_path: Path, tokenizer: Path, writers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FILE_BYTES", 150)
    one, many = by_writers(tmp_path / "one", 1, tokenizer), by_writers(tmp_path / "many", writers, tokenizer)
    assert verify(many) == [] and digests(many) == digests(one)
    first, second = read_manifest(one), read_manifest(many)
    assert list(first["tensors"]) == list(second["tensors"]) == sorted(NAMES)
    for tensors in (first["tensors"], second["tensors"]):
        for tensor in tensors.values():
            del tensor["file"]
    assert first["tensors"] == second["tensors"] and first["state"] == second["state"]
    with Reader(one) as reader, Reader(many) as other:
        assert reader.weights == other.weights == sorted(name for kind, name, _ in TENSORS if kind == "model")
    assert [path.name for path in (tmp_path / "many").iterdir()] == ["step-00000005"], "nothing is left aside"


def test_files_are_called_after_their_writer(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FILE_BYTES", 200)
    folder = by_writers(tmp_path / "root", 2, tokenizer)
    own = [
        f"{kind}-writer-000{writer}{more}.safetensors" for kind in ("model", "optimizer") for writer in (0, 1) for more in ("-00001", "")
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*own, "manifest.json", "tokenizer.json"])
    assert [entry["path"] for entry in read_manifest(folder)["files"]] == sorted([*own, "tokenizer.json"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 200), st.integers(1, 3))
def test_every_tensor_comes_back_however_files_are_cut(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], file_bytes: int, writers: int
) -> None:
    root = tmp_path_factory.mktemp("cut")
    tokenizer = root / "tokenizer.json"
    tokenizer.touch()
    tensors: list[tuple[Kind, str, Tensor]] = [("model", f"w{n}", torch.full((size,), float(n))) for n, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "FILE_BYTES", file_bytes)
        draft = Draft.begin(root / "root", 1)
        parts = []
        for writer in range(writers):
            files = Files(draft, writer, writers)
            for kind, name, tensor in tensors[writer::writers]:
                files.add(kind, name, tensor)
            files.finish()
            parts.append(files.part(name for _, name, _ in tensors))
        folder = draft.publish(parts, ABOUT, tokenizer)
    assert verify(folder) == []
    with Reader(folder) as reader:
        assert sorted(reader.weights) == sorted(name for _, name, _ in tensors)
        assert all(torch.equal(reader.get(name), tensor) for _, name, tensor in tensors)
        held: dict[str, int] = {}
        for name in reader.weights:
            file = reader.manifest["tensors"][name]["file"]
            held[file] = held.get(file, 0) + reader.get(name).nbytes
        for file, size in held.items():
            alone = [name for name in reader.weights if reader.manifest["tensors"][name]["file"] == file and reader.get(name).nbytes]
            assert size <= file_bytes or len(alone) == 1


def test_a_tensor_of_two_writers_or_of_none_is_found_out(tmp_path: Path, tokenizer: Path) -> None:
    draft = Draft.begin(tmp_path / "root", 5)
    parts = [written(draft, 0, 2, TENSORS[:3]), written(draft, 1, 2, TENSORS[2:])]
    file = "model-writer-000{}.safetensors"
    with pytest.raises(ValueError, match=rf"blocks\.2\.weight is in {file.format(1)} and in {file.format(0)}"):
        draft.publish(parts, ABOUT, tokenizer)
    draft = Draft.begin(tmp_path / "root", 5)
    with pytest.raises(ValueError, match=r"blocks\.1\.weight was kept by no writer"):
        draft.publish([written(draft, 0, 2, TENSORS[:1]), written(draft, 1, 2, TENSORS[2:])], ABOUT, tokenizer)
    assert not (tmp_path / "root" / "step-00000005").exists()


def test_a_writer_that_never_comes_is_named(tmp_path: Path) -> None:
    draft = Draft.begin(tmp_path / "root", 5)
    draft.record(2, Part(error="of another kind"))
    with pytest.raises(TimeoutError, match=r"nothing more from rank 4, rank 12 for 0\.1 s; does the process live, and does its node see"):
        draft.parts({1: "rank 4", 2: "rank 8", 3: "rank 12"}, lambda: 0.1)


def test_a_slow_writer_is_waited_for_as_long_as_it_writes(tmp_path: Path) -> None:
    draft = Draft.begin(tmp_path / "root", 5)

    def slow() -> None:
        with (draft.folder / "model-writer-0001.safetensors").open("wb", buffering=0) as handle:
            for _ in range(16):
                handle.write(b"more")
                time.sleep(0.1)
        draft.record(1, Part(names=["late"]))

    writer = threading.Thread(target=slow)
    writer.start()
    try:
        assert draft.parts({1: "rank 1"}, lambda: 1.5) == [Part(names=["late"])], "1.6 s of work, and never silent for 1.5"
    finally:
        writer.join()


def test_an_error_travels_with_the_part(tmp_path: Path) -> None:
    draft = Draft.begin(tmp_path / "root", 5)
    draft.record(1, Part(error="[Errno 28] No space left on device"))
    assert draft.parts({1: "rank 1"}, lambda: 10.0) == [Part(error="[Errno 28] No space left on device")]


def test_where_no_record_fits_an_empty_one_says_so(tmp_path: Path) -> None:
    draft = Draft.begin(tmp_path / "root", 5)
    with full_disk():
        draft.record(1, Part(error="x" * 1000))
    assert draft.parts({1: "rank 1"}, lambda: 10.0) == [Part(error="it failed, and had no room to say why")]


def test_a_record_does_not_bring_a_draft_back_that_was_given_up(tmp_path: Path) -> None:
    draft = Draft.begin(tmp_path / "root", 5)
    draft.discard()
    with pytest.raises(FileNotFoundError):
        draft.record(1, Part())
    assert list((tmp_path / "root").iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, tokenizer: Path) -> None:
    writer = Writer(tmp_path / "root", 5)
    writer.add("model", "embed.weight", torch.zeros(400))
    with full_disk(), pytest.raises(OSError, match="File too large"):
        writer.publish(ABOUT, tokenizer)
    writer.discard()
    draft = Draft.begin(tmp_path / "root", 5)
    files = Files(draft, 1, 2)
    files.add("model", "small", torch.zeros(4))
    files.add("optimizer", "large", torch.zeros(400))
    with full_disk(), pytest.raises(OSError, match="File too large"):
        files.finish()
    assert [path.name for path in draft.folder.iterdir()] == ["model-writer-0001.safetensors", "optimizer-writer-0001.safetensors"]
    files.discard()
    assert list(draft.folder.iterdir()) == [], "room for the record of what went wrong"
    draft.discard()
    assert list((tmp_path / "root").iterdir()) == []


def test_attempts_at_the_same_step_do_not_meet(tmp_path: Path, tokenizer: Path) -> None:
    first, second = Draft.begin(tmp_path / "root", 5), Draft.begin(tmp_path / "root", 5)
    for draft, value in ((first, 1.0), (second, 2.0)):
        files = Files(draft)
        files.add("model", "w", torch.tensor(value))
        files.finish()
        draft.publish([files.part(["w"])], ABOUT, tokenizer)
    with Reader(tmp_path / "root" / "step-00000005") as reader:
        assert float(reader.get("w")) == 2.0, "the last one stays"
    assert json.loads((tmp_path / "root/step-00000005/manifest.json").read_text())["tensors"].keys() == {"w"}
