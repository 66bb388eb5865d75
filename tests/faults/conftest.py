"""Real workers of small runs, launched as torchrun does, and the ways to harm them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from headrace.checkpoint import read_manifest
from headrace.tokens.store import write_store

FULL = os.environ.get("HEADRACE_FAULTS") == "full"  # `make faults`: every kind of fault ten times, at random moments
GRACE_S = 30.0  # torchrun kills what is left of a group that long after its first rank has ended
COMPARED = ("step", "loss", "grad_norm", "lr", "tokens")
SLOW_MACHINE_S = 300.0
LEARNT, VOCAB, LENGTH = 3, 97, 16


def write_tokens(folder: Path, documents: int = 1000) -> None:
    """A store of two sources whose documents can be learned: each token is at most 2 above the one before."""
    generator = np.random.default_rng(0)

    def stream(count: int) -> list[list[int]]:
        lengths = generator.integers(3, 40, count)
        return [(np.cumsum(generator.integers(0, LEARNT, length)) % (VOCAB - 1) + 1).tolist() for length in lengths]

    folder.mkdir(parents=True)
    streams = {"a": {"train": stream(documents)}, "b": {"train": stream(documents)}}
    write_store(folder, streams, vocab_size=VOCAB, eos=0, sequence_length=LENGTH)
    (folder / "tokenizer.json").write_text("{}")


def specification(folder: Path, name: str, **train: Any) -> dict[str, Any]:
    """Of the run folder/name: its checkpoints take long enough to be met in the middle."""
    settings = {
        "steps": 200,
        "batch": {"global": 8, "micro": 2},
        "layout": {"zero": 1},
        "schedule": {"name": "cosine", "warmup": 4},
        "optimizer": {"lr": 2e-3, "eps": 1e-6, "clip": 0.5},
        "checkpoint": {"every": 10, "keep": 3},
        "timeout_s": 5.0,
        **train,
    }
    return {
        "run": str(folder / name),
        "tokens": str(folder / "tokens"),
        "seed": 7,
        "mixture": {"a": 1.0, "b": 2.0},
        "model": {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "mlp": 130},
        "train": settings,
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file that may be growing."""
    content = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


@dataclass
class Outcome:
    """How a group of ranks ended."""

    codes: list[int]
    said: list[str]


@dataclass
class Group:
    """The ranks of one start of a run."""

    run: Path
    ranks: list[subprocess.Popen[bytes]]
    logs: list[Path]
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, spec: dict[str, Any], world: int = 2) -> Group:
        run = Path(spec["run"])
        path = run.with_name(f"{run.name}.json")
        path.write_text(json.dumps(spec))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        number = len(list(run.parent.glob(f"{run.name}-*-0.log")))
        ranks, logs = [], []
        for rank in range(world):
            meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **meet, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            logs.append(run.with_name(f"{run.name}-{number}-{rank}.log"))
            with logs[-1].open("wb") as log:
                command = [sys.executable, "-m", "headrace.train.worker", str(path)]
                ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
        return cls(run, ranks, logs)

    def said(self) -> list[str]:
        return [log.read_text(errors="replace") for log in self.logs]

    def alive(self) -> bool:
        return all(rank.poll() is None for rank in self.ranks)

    def until(self, what: Callable[[], Any], often_s: float = 0.005) -> Any:
        """What the function finds, once it finds something; every rank must live until then."""
        deadline = time.monotonic() + SLOW_MACHINE_S
        while not (found := what()):
            assert self.alive(), "\n".join(self.said())
            assert time.monotonic() < deadline, "\n".join(self.said())
            time.sleep(often_s)
        return found

    def steps(self) -> int:
        """The last step of which there is a line."""
        lines = read_lines(self.run / "train" / "metrics.jsonl")
        return lines[-1]["step"] if lines else 0

    def take_steps(self, count: int) -> int:
        """Wait until this start has taken so many steps; the last one."""
        restored = self.until(lambda: self.starts_on_record() > self.before and self.restored())
        self.until(lambda: self.steps() >= restored[0] + count)
        return self.steps()

    before: int = 0

    def starts_on_record(self) -> int:
        return len(read_lines(self.run / "train" / "workers.jsonl"))

    def restored(self) -> tuple[int]:
        return (read_lines(self.run / "train" / "workers.jsonl")[-1]["restored_step"] or 0,)

    def send(self, rank: int, number: signal.Signals) -> None:
        self.ranks[rank].send_signal(number)

    def end(self) -> Outcome:
        """Wait for the ranks as torchrun does: once one has failed, the others have a while to follow."""
        deadline = time.monotonic() + SLOW_MACHINE_S
        while any(rank.poll() is None for rank in self.ranks):
            if any(rank.poll() not in (None, 0) for rank in self.ranks):
                deadline = min(deadline, time.monotonic() + GRACE_S)
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(0.01)
        return Outcome([rank.returncode for rank in self.ranks], self.said())

    def kill(self) -> None:
        for rank in self.ranks:
            with contextlib.suppress(ProcessLookupError):
                rank.kill()
            rank.wait()


class Faults:
    """Starts runs and harms them; what is still alive at the end of a test's module is ended."""

    full = FULL
    write_tokens = staticmethod(write_tokens)
    specification = staticmethod(specification)
    read_lines = staticmethod(read_lines)

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.random = random.Random(os.environ.get("HEADRACE_FAULTS_SEED", "0"))

    def start(self, spec: dict[str, Any], world: int = 2) -> Group:
        before = len(read_lines(Path(spec["run"]) / "train" / "workers.jsonl"))
        group = Group.start(spec, world)
        group.before = before
        self.groups.append(group)
        return group

    def finish(self, spec: dict[str, Any], world: int = 2) -> None:
        outcome = self.start(spec, world).end()
        assert outcome.codes == [0] * world, "\n".join(outcome.said)

    def close(self) -> None:
        for group in self.groups:
            group.kill()

    # Each fault waits for its moment in a group that trains, strikes, and returns how the group ended.

    def kill_in_a_step(self, group: Group, rank: int) -> Outcome:
        group.take_steps(self.random.randint(2, 14))
        time.sleep(self.random.uniform(0, 0.05))
        group.send(rank, signal.SIGKILL)
        outcome = group.end()
        assert outcome.codes[rank] == -signal.SIGKILL and 0 not in outcome.codes, outcome.said
        return outcome

    def kill_in_an_all_reduce(self, group: Group, rank: int) -> Outcome:
        """The other rank is stopped, so this one waits for it; when its processor stands still, it waits inside the collective."""
        group.take_steps(self.random.randint(2, 14))
        group.send(1 - rank, signal.SIGSTOP)
        process = psutil.Process(group.ranks[rank].pid)

        def waits() -> bool:
            before = sum(process.cpu_times()[:2])
            time.sleep(0.3)
            # Its watchdog wakes up once a second for a moment.
            return sum(process.cpu_times()[:2]) - before <= 0.02

        group.until(waits)
        sign = json.loads((group.run / "train" / "alive" / f"rank-{rank}.json").read_bytes())
        group.send(rank, signal.SIGKILL)
        group.send(1 - rank, signal.SIGCONT)
        outcome = group.end()
        assert sign["doing"] != "reading data", sign
        assert outcome.codes[rank] == -signal.SIGKILL and 0 not in outcome.codes, outcome.said
        return outcome

    def kill_in_a_checkpoint(self, group: Group, rank: int) -> Outcome:
        """Killed while a draft of a checkpoint lies beside the others; it must be there afterwards, or it was published before."""
        root = group.run / "train" / "checkpoints"
        group.take_steps(1)

        def drafts() -> list[Path]:
            return [path for path in root.glob(".aside-*") if any(path.rglob("*.safetensors"))]

        group.until(drafts, 0.0002)
        group.send(rank, signal.SIGKILL)
        outcome = group.end()
        assert outcome.codes[rank] == -signal.SIGKILL and 0 not in outcome.codes, outcome.said
        return outcome

    def kill_everything(self, group: Group) -> Outcome:
        """As when the machine, or the driver and with it all that it started, is gone."""
        group.take_steps(self.random.randint(2, 14))
        for rank in group.ranks:
            rank.kill()
        return group.end()

    def stop(self, group: Group, rank: int) -> Outcome:
        group.take_steps(self.random.randint(2, 14))
        group.send(rank, signal.SIGSTOP)
        group.ranks[1 - rank].wait(SLOW_MACHINE_S)
        group.send(rank, signal.SIGKILL)
        return group.end()

    def terminate(self, group: Group, rank: int) -> Outcome:
        group.take_steps(self.random.randint(2, 14))
        group.send(rank, signal.SIGTERM)
        return group.end()

    def fill_the_disk(self, group: Group) -> Outcome:
        """No rank may write a file of the size that a checkpoint's have."""
        group.take_steps(1)
        for rank in group.ranks:
            resource.prlimit(rank.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        return group.end()


@pytest.fixture(scope="module")
def faults() -> Any:
    made = Faults()
    yield made
    made.close()


def same_run(run: Path, other: Path) -> None:
    """Assert that two runs took the same steps, each once, and ended in the same bytes."""
    ours, theirs = (read_lines(each / "train" / "metrics.jsonl") for each in (run, other))
    assert [line["step"] for line in ours] == list(range(1, len(theirs) + 1))
    assert [[line[name] for name in COMPARED] for line in ours] == [[line[name] for name in COMPARED] for line in theirs]
    last, other_last = (max((each / "train" / "checkpoints").glob("step-*")) for each in (run, other))
    assert last.name == other_last.name and read_manifest(last)["files"] == read_manifest(other_last)["files"]
    assert not list((run / "train" / "checkpoints").glob(".aside-*"))


@pytest.fixture(scope="session")
def equal() -> Any:
    return same_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = tmp_path_factory.mktemp("faults")
    write_tokens(made / "tokens")
    yield made
    if FULL:
        shutil.rmtree(made, ignore_errors=True)
