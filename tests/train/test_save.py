"""Saving behind the training: in one process, in two, and in processes that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from headrace.checkpoint import Reader, committed, digests, load_model, read_manifest, verify
from headrace.checkpoint.write import Kind, Writer
from headrace.fence import Group, GroupReplaced
from headrace.model import DecoderConfig
from headrace.train import save as saving
from headrace.train.save import CheckpointFailed, HostMemory, Saver

HERE = Path(__file__).parent
CONFIG = DecoderConfig(layers=1, hidden=8, heads=2).sized(11, 4)
ABOUT: dict[str, Any] = {"model": CONFIG.model_dump(), "state": {}, "config": {}, "layout": {}, "versions": {}}


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """A process group of this process alone."""
    torch.set_num_threads(1)
    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    return path


def state(value: float, size: int = 100) -> list[tuple[Kind, str, Tensor]]:
    return [
        ("model", "embed.weight", torch.full((size, 3), value)),
        ("model", "head.weight", torch.full((3, size), value).t()),
        ("optimizer", "exp_avg/embed.weight", torch.full((size, 3), value, dtype=torch.bfloat16)),
        ("optimizer", "step", torch.tensor(value)),
    ]


def values(folder: Path) -> set[float]:
    with Reader(folder) as reader:
        return {float(number) for name in reader.manifest["tensors"] for number in reader.get(name).flatten().unique()}


def test_what_is_done_to_a_tensor_later_is_not_saved(tmp_path: Path, tokenizer: Path) -> None:
    saver = Saver(tmp_path / "root")
    tensors = state(1.0, size=1_000_000)
    about = {**ABOUT, "state": {"recent": [1.0]}}
    assert saver.save(tensors, 1, about, tokenizer) is None
    for _, _, tensor in tensors:
        tensor.fill_(-1.0)
    about["state"]["recent"].append(2.0)
    saved = saver.finish()
    assert saved is not None and saved.folder == tmp_path / "root" / "step-00000001"
    assert values(saved.folder) == {1.0} and verify(saved.folder) == []
    assert read_manifest(saved.folder)["state"] == {"recent": [1.0]}


def test_the_bytes_are_a_writer_s(tmp_path: Path, tokenizer: Path) -> None:
    saver = Saver(tmp_path / "root", asynchronous=False)
    saved = saver.save(state(1.0), 1, ABOUT, tokenizer)
    assert saved is not None and not [thread for thread in threading.enumerate() if thread.name == "step-00000001"]
    writer = Writer(tmp_path / "other", 1)
    for kind, name, tensor in state(1.0):
        writer.add(kind, name, tensor)
    folder = writer.publish(ABOUT, tokenizer)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.name: path.read_bytes() for path in saved.folder.iterdir()} == files
    assert saved.bytes == sum(len(content) for content in files.values())
    assert load_model(saved.folder)[0] == CONFIG


def test_training_goes_on_while_it_is_written(tmp_path: Path) -> None:
    """A pipe for a tokenizer holds the writing up for as long as the test likes."""
    pipe = tmp_path / "tokenizer.json"
    os.mkfifo(pipe)
    seen: list[str] = []
    saver = Saver(tmp_path / "root", published=lambda folder: seen.append(folder.name))
    assert saver.save(state(1.0), 1, ABOUT, pipe) is None
    assert committed(tmp_path / "root") == [] and seen == []

    def open_the_way() -> None:
        time.sleep(0.3)
        pipe.write_text("{}")

    helper = threading.Thread(target=open_the_way)
    helper.start()
    first = saver.save(state(2.0), 2, ABOUT, pipe)
    assert first is not None and (first.step, seen) == (1, ["step-00000001"]), "the second waits for the first"
    assert first.stall_s < first.written_s
    helper.join()
    pipe.write_text("{}")
    second = saver.finish()
    assert second is not None and (second.step, seen) == (2, ["step-00000001", "step-00000002"])
    assert second.waited_s > second.stall_s, "the pipe held up the one before, not this one"
    assert saver.finish() is None
    assert [values(folder) for folder in committed(tmp_path / "root")] == [{1.0}, {2.0}]


def test_a_failure_is_told_once_and_spares_the_one_before(tmp_path: Path, tokenizer: Path) -> None:
    saver = Saver(tmp_path / "root")
    saver.save(state(1.0), 1, ABOUT, tokenizer)
    saver.save(state(2.0), 2, ABOUT, tmp_path / "nowhere.json")
    untouched = iter(state(3.0))
    with pytest.raises(CheckpointFailed, match=r"step-00000002: could not be written: .*No such file or directory.*nowhere\.json"):
        saver.save(untouched, 3, ABOUT, tokenizer)
    assert len(list(untouched)) == 4
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["step-00000001"]
    assert saver.save(state(4.0), 4, ABOUT, tokenizer) is None
    assert saver.finish() is not None and [values(folder) for folder in committed(tmp_path / "root")] == [{1.0}, {4.0}]


def test_a_foreground_save_fails_where_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointFailed, match="step-00000002: could not be written"):
        Saver(tmp_path / "root", asynchronous=False).save(state(2.0), 2, ABOUT, tmp_path / "nowhere.json")


def test_what_breaks_off_the_gathering_leaves_nothing(tmp_path: Path, tokenizer: Path) -> None:
    def broken() -> Iterator[tuple[Kind, str, Tensor]]:
        yield state(1.0)[0]
        raise RuntimeError("Connection closed by peer")

    saver = Saver(tmp_path / "root")
    with pytest.raises(RuntimeError, match="closed by peer"):
        saver.save(broken(), 1, ABOUT, tokenizer)
    saver.close()
    assert list((tmp_path / "root").iterdir()) == []


def test_what_follows_a_publication_may_fail(tmp_path: Path, tokenizer: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fails(folder: Path) -> None:
        raise OSError("no permission to delete")

    saver = Saver(tmp_path / "root", published=fails)
    saver.save(state(1.0), 1, ABOUT, tokenizer)
    assert saver.finish() is not None
    assert "no permission to delete" in caplog.text


def test_a_group_that_is_replaced_publishes_nothing(tmp_path: Path, tokenizer: Path) -> None:
    group = Group.claim(tmp_path)
    saver = Saver(tmp_path / "root", refusal=group.look)
    saver.save(state(1.0), 1, ABOUT, tokenizer)
    assert saver.finish() is not None
    Group.claim(tmp_path)
    saver.save(state(2.0), 2, ABOUT, tokenizer)
    with pytest.raises(GroupReplaced):
        saver.finish()
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("patience, end", [("SILENCE_S", Saver.finish), ("CLOSING_S", Saver.close)])
def test_a_writer_that_is_gone_is_not_waited_for_for_ever(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, patience: str, end: Any
) -> None:
    monkeypatch.setattr(saving, patience, 0.2)
    saver = Saver(tmp_path / "root", writers=[0, 4])
    saver.save(state(1.0), 1, ABOUT, tokenizer)
    with contextlib.suppress(CheckpointFailed):
        end(saver)
    assert "step-00000001: could not be written: nothing more from rank 4 for 0.2 s" in caplog.text
    assert list((tmp_path / "root").iterdir()) == []


def test_rank_0_is_the_first_writer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"writers = \[1, 0\]: rank 0 publishes"):
        Saver(tmp_path / "root", writers=[1, 0])


def test_the_next_checkpoint_lies_where_the_one_before_lay() -> None:
    memory = HostMemory(pinned=False)
    sizes = [3, 0, 1000, 1, 70_000_000, 5]
    places = []
    for round in range(3):
        memory.clear()
        copies = [memory.copy(torch.full((size,), round, dtype=torch.uint8)) for size in sizes]
        assert all(bool((copy == round).all()) for copy in copies)
        places.append([copy.data_ptr() for copy in copies])
    assert places[0] == places[1] == places[2]


def test_copies_do_not_overlap() -> None:
    memory = HostMemory(pinned=False)
    kinds = [torch.bool, torch.float64, torch.int8, torch.bfloat16, torch.int64, torch.float32]
    tensors = [torch.full((number,), number % 2).to(kinds[number % 6]) for number in range(40)]
    copies = [memory.copy(tensor) for tensor in tensors]
    assert all(torch.equal(copy, tensor) and copy.dtype == tensor.dtype for copy, tensor in zip(copies, tensors, strict=True))


def test_a_view_is_copied_row_by_row() -> None:
    columns = torch.arange(12.0).view(3, 4).t()
    copy = HostMemory(pinned=False).copy(columns)
    assert torch.equal(copy, columns) and copy.is_contiguous()


def run(script: str, folder: Path, ranks: Sequence[dict[str, str]], expected: Sequence[int]) -> str:
    """The first process's output."""
    command = [sys.executable, str(HERE / script), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, env={**environment, **rank}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for rank in ranks
    ]
    outputs = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == list(expected), outputs
    return outputs[0][0]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two processes have saved, now and then in vain."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "tokenizer.json").write_text("{}")
    run("run_saves.py", folder, [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)], [0, -9])
    return folder


def said(two: Path, case: str) -> Any:
    """What both ranks were told of a case."""
    first, second = (json.loads((two / f"rank{rank}.json").read_text())[case] for rank in range(2))
    assert first == second, "every rank alike"
    return first


def test_both_write_and_every_tensor_is_there(two: Path) -> None:
    root = two / "root"
    assert [folder.name for folder in committed(root)] == [f"step-{step:08d}" for step in (1, 2, 7, 8, 9, 10)]
    assert len(list(root.iterdir())) == 6, "nothing is left aside of those that failed"
    for folder, step in zip(committed(root), (1, 2, 7, 8, 9, 10), strict=True):
        assert verify(folder) == []
        with Reader(folder) as reader:
            assert reader.weights == [f"blocks.{place}.weight" for place in range(6)]
            for place, name in enumerate(reader.weights):
                assert torch.equal(reader.get(name), torch.full((1000,), float(100 * step + place)))
            files = {tensor["file"] for tensor in reader.manifest["tensors"].values()}
        assert len(files) == (1 if step == 9 else 2)


def test_the_cost_is_told_with_the_next(two: Path) -> None:
    assert said(two, "first") is None and said(two, "nothing more") is None
    assert [said(two, case)["step"] for case in ("second", "end of second", "end of whole again")] == ["1", "2", "7"]
    assert [said(two, case)["step"] for case in ("in the foreground", "only rank 0 writes")] == ["8", "9"]
    names = [f"step-{step:08d}" for step in (1, 2, 7, 10)]
    assert [json.loads((two / f"rank{rank}.json").read_text())["published"] for rank in range(2)] == [names, []]


@pytest.mark.parametrize(
    "case, message",
    [
        ("its end", "step-00000003: could not be written: [Errno 27] File too large (rank 1)"),
        ("the next says so", "step-00000003: could not be written: it failed, and had no room to say why (rank 1)"),
        ("end of kept by nobody", "step-00000005: could not be written: blocks.3.weight was kept by no writer."),
        ("end of no memory", "step-00000006: could not be written: huge could not be copied to the host's memory"),
        ("no folder can be made", "step-00000001: could not be written: [Errno 20] Not a directory"),
    ],
)
def test_a_failure_of_one_is_one_of_all(two: Path, case: str, message: str) -> None:
    told = said(two, case)
    assert told.startswith("CheckpointFailed: ") and message in told


def test_a_peer_that_is_killed_leaves_nothing_aside(two: Path) -> None:
    told = json.loads((two / "rank0.json").read_text())["rank 1 is killed"]
    assert told is not None and not told.startswith("CheckpointFailed"), "the collective's own error"


def test_the_files_do_not_decide_what_is_stored(two: Path, tmp_path: Path, tokenizer: Path) -> None:
    writer = Writer(tmp_path / "root", 7)
    for place in range(6):
        writer.add("model", f"blocks.{place}.weight", torch.full((1000,), 700.0 + place))
    assert digests(writer.publish(ABOUT, tokenizer)) == digests(two / "root" / "step-00000007")


def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    kills = [json.loads(line) for line in run("run_killed_saves.py", tmp_path, [{}], [0]).splitlines()]
    assert len(kills) == 10 and any(kill["aside"] for kill in kills), "at least one was at work"
    for kill in kills:
        assert kill["names"] == ["step-00000007"] and kill["breaches"] == []
        assert kill["values"] in ([kill["told"]], [kill["told"] + 1]), "one state whole, the last that was told of or the next"
