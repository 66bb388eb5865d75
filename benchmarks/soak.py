"""Runs under a steady rain of kills: what is lost, and whether anything grows.

python benchmarks/soak.py [--json] [--minutes 30] [--every 60] [--steps 400] [--seed 0]. The whole flow on the text of this machine's own
Python is run once and left alone; then again and again while every minute one of its processes is killed (SIGKILL): the driver, a job, a
worker of the data stages, of training or of a scoring job, Ray's own daemons, or the whole local cluster. Whoever started a run starts
it again when its driver is gone, and does nothing else. Every run must end in the files, losses and scores of the one left alone, and
leave no process, no temporary folder and no more on disk behind than that one. Exit code 1 where something differs or is left.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from headrace import storage
from headrace.checkpoint import committed, read_manifest
from headrace.control.cluster import MARK
from rows import row, show

COMPARED = ("step", "loss", "grad_norm", "lr", "tokens")
LOOK_S = 1.0
SETTLE_S = 60.0  # for what was killed to be gone
KINDS = {  # by what stands in a process's command line
    "training job": "train_model.py",
    "data job": "curate_corpus.py",
    "scoring": "evaluate_checkpoint.py",
    "training worker": "RayTrainWorker",
    "training controller": "TrainController",
    "data worker": "ray::Map",
    "raylet": "raylet/raylet",
    "head": "gcs_server",
    "cluster": "headrace.control.keeper",
}
SELDOM = {"raylet", "head", "cluster"}  # a machine's end is rarer than a process's
SELDOM_SHARE = 0.1


@dataclass
class Cycle:
    """One run, and what was seen of it from outside."""

    folder: Path
    seconds: float = 0.0
    starts: int = 0
    kills: list[str] = field(default_factory=list)
    memory: int = 0  # bytes, the largest sum over its processes
    left: list[str] = field(default_factory=list)
    drivers: list[int] = field(default_factory=list)  # process ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--minutes", type=float, default=30.0, help="no further run is begun after so long")
    parser.add_argument("--every", type=float, default=60.0, help="seconds from one kill to the next")
    parser.add_argument("--steps", type=int, default=400, help="of training, in every run")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is not to be left behind
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        settings = [f"train.steps={arguments.steps}", "train.checkpoint.every=25", "train.max_failures=1000"]
        begun = time.monotonic()
        plain = follow(Cycle(folder / "plain"), ["quickstart", "--out", str(folder / "plain"), *settings], None, 0.0)
        draw = random.Random(arguments.seed)
        cycles: list[Cycle] = []
        wrong: list[str] = [*plain.left]
        sizes = [size(plain.folder)]
        while time.monotonic() - begun < 60 * arguments.minutes or not cycles:
            cycle = Cycle(folder / f"run-{len(cycles)}")
            command = ["run", str(plain.folder / "config.yaml"), f"out={cycle.folder}"]
            cycles.append(follow(cycle, command, draw, arguments.every))
            wrong += [*cycle.left, *differences(cycle.folder, plain.folder)]
            sizes.append(size(cycle.folder))
            shutil.rmtree(cycle.folder)
            print(f"{cycle.folder.name}: {cycle.seconds:.0f} s, {', '.join(cycle.kills) or 'nothing'} killed", file=sys.stderr)
    for line in wrong:
        print(line, file=sys.stderr)
    show("soak", rows_of(plain, cycles, sizes, not wrong), arguments.json)
    sys.exit(bool(wrong))


def rows_of(plain: Cycle, cycles: list[Cycle], sizes: list[tuple[int, int]], same: bool) -> list[dict[str, Any]]:
    """Goodput, and what grew from the run left alone to the others."""
    kills = Counter(kill for cycle in cycles for kill in cycle.kills)
    told = ", ".join(f"{count} x {kind}" for kind, count in sorted(kills.items()))
    mean = statistics.mean(cycle.seconds for cycle in cycles)
    lost = (mean - plain.seconds) * len(cycles) / max(1, kills.total())
    against = f"the run left alone; {len(cycles)} runs, {kills.total()} kills ({told}), {lost:.1f} s lost to each"
    memory = max(cycle.memory for cycle in cycles)
    (files, bytes_), *others = sizes
    most_files, most_bytes = max(count for count, _ in others), max(of for _, of in others)
    return [
        row("goodput", against, plain.seconds / mean, mean, plain.seconds, "s", same),
        row("largest memory of a run", "the run left alone", plain.memory / memory, memory / 2**20, plain.memory / 2**20, "MiB", same),
        row("largest folder of a run", "the run left alone", bytes_ / most_bytes, most_bytes / 1e6, bytes_ / 1e6, "MB", same),
        row("most files of a run", "the run left alone", files / most_files, most_files, files, "files", same),
    ]


def follow(cycle: Cycle, command: list[str], draw: random.Random | None, every: float) -> Cycle:
    """Bring a run to its end, starting it again whenever its driver is gone; kill something every so often if there is a `draw`."""
    marks: set[str] = set()
    try:
        return _followed(cycle, command, draw, every, marks)
    except BaseException:
        for process in [psutil.Process(pid) for pid in cycle.drivers if psutil.pid_exists(pid)] + [each for each, _ in of_marks(marks)]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        raise


def _followed(cycle: Cycle, command: list[str], draw: random.Random | None, every: float, marks: set[str]) -> Cycle:
    begun = time.monotonic()
    log = cycle.folder.with_suffix(".log")
    due = begun + every
    driver: subprocess.Popen[bytes] | None = None
    while driver is None or driver.poll() != 0:
        if driver is None or driver.poll() is not None:
            if cycle.starts > 20 + 2 * len(cycle.kills):
                raise SystemExit(f"{cycle.folder.name} does not come to its end: {log.read_text(errors='replace')[-2000:]}")
            cycle.starts += 1
            with log.open("ab") as output:
                driver = subprocess.Popen([sys.executable, "-m", "headrace.cli", *command], stdout=output, stderr=output)
            cycle.drivers.append(driver.pid)
        time.sleep(LOOK_S)
        with contextlib.suppress(OSError, ValueError):
            marks.add(storage.read_json(cycle.folder / "control" / "cluster.json")["mark"])
        alive = list(of_marks(marks))
        cycle.memory = max(cycle.memory, sum(memory(process) for process, _ in alive))
        if draw is not None and time.monotonic() > due:
            due = time.monotonic() + every
            if kill := strike(draw, alive, driver):
                cycle.kills.append(kill)
    cycle.seconds = time.monotonic() - begun
    cycle.left = leftovers(marks)
    return cycle


def of_marks(marks: set[str]) -> Iterator[tuple[psutil.Process, str]]:
    """The processes of local clusters, and their command lines."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            line = " ".join(process.cmdline())
            if process.environ().get(MARK) in marks or ("headrace.control.keeper" in line and any(mark in line for mark in marks)):
                yield process, line


def memory(process: psutil.Process) -> int:
    """Resident bytes without what is shared with others, so that the object store is not counted once a process."""
    try:
        info = process.memory_info()
        return max(0, info.rss - info.shared)
    except psutil.Error:
        return 0


def strike(draw: random.Random, alive: list[tuple[psutil.Process, str]], driver: subprocess.Popen[bytes]) -> str | None:
    """Kill a process, of a kind drawn among those that are there."""
    found: dict[str, list[psutil.Process]] = {"driver": [psutil.Process(driver.pid)]} if driver.poll() is None else {}
    for process, line in alive:
        for kind, sign in KINDS.items():
            if sign in line:
                found.setdefault(kind, []).append(process)
    seldom = draw.random() < SELDOM_SHARE
    kinds = sorted(kind for kind in found if (kind in SELDOM) == seldom)
    if not kinds:
        return None
    kind = draw.choice(kinds)
    with contextlib.suppress(psutil.NoSuchProcess):
        draw.choice(found[kind]).kill()
        return kind
    return None


def leftovers(marks: set[str]) -> list[str]:
    """Processes and temporary folders of clusters that should be gone."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        found = [f"process {process.pid} is left: {line[:120]}" for process, line in of_marks(marks)]
        found += [f"{mark} is left" for mark in sorted(marks) if Path(mark).exists()]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(LOOK_S)


def differences(run: Path, plain: Path) -> list[str]:
    """In what a run's results are not those of the one left alone."""
    found = []
    ours, theirs = ({path.relative_to(each): path.read_bytes() for path in each.glob("data/*/*/manifest.json")} for each in (run, plain))
    found += [f"{run.name}: {path} differs" for path in sorted({*ours, *theirs}) if ours.get(path) != theirs.get(path)]
    lines = [[[line[name] for name in COMPARED] for line in storage.read_lines(each / "train" / "metrics.jsonl")] for each in (run, plain)]
    if lines[0] != lines[1]:
        found.append(f"{run.name}: losses differ")
    last = [committed(each / "train" / "checkpoints")[-1] for each in (run, plain)]
    if last[0].name != last[1].name or read_manifest(last[0])["files"] != read_manifest(last[1])["files"]:
        found.append(f"{run.name}: the last checkpoint differs")
    scores = [storage.read_json(each / "eval" / checkpoint.name / "fast.json")["metrics"] for each, checkpoint in zip((run, plain), last)]
    if scores[0] != scores[1]:
        found.append(f"{run.name}: scores differ")
    return found


def size(folder: Path) -> tuple[int, int]:
    """Files and bytes of a run; what its jobs printed counts one file each start, and is left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and "raw" not in path.parts and "control" not in path.parts]
    return len(files), sum(path.stat().st_size for path in files)


if __name__ == "__main__":
    main()
