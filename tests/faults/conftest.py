"""Real workers of small runs, launched as torchrun does, and the ways to harm them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from headrace.checkpoint import read_manifest
from headrace.tokens.store import write_store

GRACE_S = 30.0  # so long after the first rank of a group has failed torchrun kills the others
PATIENCE_S = 300.0  # of a test with a slow machine
COMPARED = ("step", "loss", "grad_norm", "lr", "tokens")


def write_tokens(folder: Path, documents: int) -> None:
    """A store of two sources, so many documents each, that can be learned: each token is at most 2 above the one before."""
    generator = np.random.default_rng(0)

    def stream() -> list[list[int]]:
        lengths = generator.integers(3, 40, documents)
        return [(np.cumsum(generator.integers(0, 3, length)) % 96 + 1).tolist() for length in lengths]

    folder.mkdir(parents=True)
    write_store(folder, {"a": {"train": stream()}, "b": {"train": stream()}}, vocab_size=97, eos=0, sequence_length=16)
    (folder / "tokenizer.json").write_text("{}")


def specification(folder: Path, name: str, **train: Any) -> dict[str, Any]:
    """Of the run folder/name, on the store folder/tokens; a checkpoint of it is a megabyte."""
    settings = {
        "steps": 200,
        "batch": {"global": 8, "micro": 2},
        "layout": {"zero": 1},
        "schedule": {"name": "cosine", "warmup": 4},
        "optimizer": {"lr": 2e-3, "eps": 1e-6, "clip": 0.5},
        "checkpoint": {"every": 10, "keep": 3},
        "timeout_s": 10.0,
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
class Watched:
    """A run whose workers, started by whomever, are to be met at a certain moment."""

    run: Path
    met: int  # starts that are on record from before

    def starts(self) -> list[dict[str, Any]]:
        return read_lines(self.run / "train" / "workers.jsonl")

    def steps(self) -> int:
        """The last step that is on record."""
        lines = read_lines(self.run / "train" / "metrics.jsonl")
        return lines[-1]["step"] if lines else 0

    def check(self) -> None:
        """Assert that what runs it has not ended; of a run that somebody else started nothing is known."""

    def until(self, what: Callable[[], Any], often_s: float = 0.005) -> Any:
        """What the function finds, once it finds something."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := what()):
            self.check()
            assert time.monotonic() < deadline
            time.sleep(often_s)
        return found

    def take_steps(self, count: int) -> None:
        """Wait until the next start has taken so many steps."""
        self.until(lambda: len(self.starts()) > self.met)
        restored = self.starts()[self.met]["restored_step"] or 0
        self.met += 1
        self.until(lambda: self.steps() >= restored + count)

    def sign(self, rank: int) -> dict[str, Any]:
        """A rank's last sign of life."""
        found: dict[str, Any] = json.loads((self.run / "train" / "alive" / f"rank-{rank}.json").read_bytes())
        return found


@dataclass
class Group(Watched):
    """The ranks of one start of a run, and what each says."""

    ranks: list[subprocess.Popen[bytes]]
    logs: list[Path]

    @property
    def said(self) -> list[str]:
        return [log.read_text(errors="replace") for log in self.logs]

    @property
    def codes(self) -> list[int | None]:
        return [rank.returncode for rank in self.ranks]

    def check(self) -> None:
        assert all(rank.poll() is None for rank in self.ranks), "\n".join(self.said)

    def end(self) -> None:
        """Wait for all ranks; once one has failed, the others have a while to follow."""
        deadline = time.monotonic() + PATIENCE_S
        while any(rank.poll() is None for rank in self.ranks):
            if any(rank.poll() not in (None, 0) for rank in self.ranks):
                deadline = min(deadline, time.monotonic() + GRACE_S)
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(0.01)

    def kill(self) -> None:
        for rank in self.ranks:
            with contextlib.suppress(ProcessLookupError):
                rank.kill()
        for rank in self.ranks:
            rank.wait()


class Faults:
    """Starts runs and harms them. Each fault waits for its moment in a group that trains, strikes, and waits for the end of all ranks."""

    watched = Watched
    write_tokens = staticmethod(write_tokens)
    specification = staticmethod(specification)
    read_lines = staticmethod(read_lines)

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.random = random.Random(os.environ.get("HEADRACE_FAULTS_SEED", "0"))

    def start(self, spec: dict[str, Any], world: int = 2) -> Group:
        run = Path(spec["run"])
        path = run.with_name(f"{run.name}.json")
        path.write_text(json.dumps(spec))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        group = Group(run, 0, [], [])
        group.met = len(group.starts())
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        for rank in range(world):
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **meet, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            log = run.with_name(f"{run.name}-{len(self.groups)}-{rank}.log")
            command = [sys.executable, "-m", "headrace.train.worker", str(path)]
            with log.open("wb") as said:
                group.ranks.append(subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT))
            group.logs.append(log)
        self.groups.append(group)
        return group

    def finish(self, spec: dict[str, Any], world: int = 2) -> None:
        """Bring a run to its end."""
        group = self.start(spec, world)
        group.end()
        assert group.codes == [0] * world, "\n".join(group.said)

    def close(self) -> None:
        for group in self.groups:
            group.kill()

    def kill_in_a_step(self, group: Group, rank: int) -> None:
        group.take_steps(self.random.randint(2, 14))
        time.sleep(self.random.uniform(0, 0.05))
        group.ranks[rank].kill()
        group.end()

    def kill_in_an_all_reduce(self, group: Group, rank: int) -> None:
        """The other rank is stopped, so this one waits for it; when its processor stands still, it does so inside a collective."""
        group.take_steps(self.random.randint(2, 14))
        group.ranks[1 - rank].send_signal(signal.SIGSTOP)
        self.wait_in_an_all_reduce(group, rank)
        group.ranks[rank].kill()
        group.ranks[1 - rank].send_signal(signal.SIGCONT)
        group.end()

    def wait_in_an_all_reduce(self, group: Group, rank: int) -> None:
        """Return once a rank whose peer is stopped has come to where it needs it."""
        process = psutil.Process(group.ranks[rank].pid)

        def waits() -> bool:
            before = sum(process.cpu_times()[:2])
            time.sleep(0.3)
            return sum(process.cpu_times()[:2]) - before <= 0.02  # its watchdog wakes up once a second

        group.until(waits)

    def kill_in_a_checkpoint(self, group: Group, rank: int) -> None:
        """Killed while tensors of a checkpoint lie beside those that are published."""
        root = group.run / "train" / "checkpoints"
        group.take_steps(1)
        group.until(lambda: any(any(path.rglob("*.safetensors")) for path in root.glob(".aside-step-*")), 0.0002)
        group.ranks[rank].kill()
        group.end()

    def kill_everything(self, group: Group) -> None:
        """As when the machine is gone, or the launcher and with it all that it started."""
        group.take_steps(self.random.randint(2, 14))
        group.kill()

    def stop(self, group: Group, rank: int) -> None:
        # Before the first checkpoint of a start: how long that may take nobody knows, so it would be waited for.
        group.take_steps(self.random.randint(2, 8))
        group.ranks[rank].send_signal(signal.SIGSTOP)
        group.ranks[1 - rank].wait(PATIENCE_S)
        group.kill()

    def terminate(self, group: Group, rank: int) -> None:
        group.take_steps(self.random.randint(2, 14))
        group.ranks[rank].send_signal(signal.SIGTERM)
        group.end()

    def fill_the_disk(self, group: Group) -> None:
        """No rank may write a file as large as those of a checkpoint."""
        group.take_steps(1)
        for rank in group.ranks:
            resource.prlimit(rank.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        group.end()


@pytest.fixture(scope="session")
def faults() -> Iterator[Faults]:
    made = Faults()
    yield made
    made.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the runs, with the token store that they train on."""
    made = tmp_path_factory.mktemp("faults")
    write_tokens(made / "tokens", 1000)
    return made


@pytest.fixture(scope="session")
def plain(faults: Faults, folder: Path) -> Path:
    """The run that nothing happens to."""
    spec = specification(folder, "plain")
    faults.finish(spec)
    return Path(spec["run"])


def same_run(run: Path, other: Path) -> None:
    ours, theirs = (read_lines(each / "train" / "metrics.jsonl") for each in (run, other))
    assert [line["step"] for line in ours] == list(range(1, len(theirs) + 1)), "each step once"
    assert [[line[name] for name in COMPARED] for line in ours] == [[line[name] for name in COMPARED] for line in theirs]
    last, other_last = (max((each / "train" / "checkpoints").glob("step-*")) for each in (run, other))
    assert last.name == other_last.name and read_manifest(last)["files"] == read_manifest(other_last)["files"]
    assert not list((run / "train" / "checkpoints").glob(".aside-*")), "nothing half-written is left"


@pytest.fixture(scope="session")
def same() -> Callable[[Path, Path], None]:
    """Assert that two runs took the same steps with the same losses and ended in the same bytes."""
    return same_run
