"""What training costs beyond the arithmetic: Ray Train, the worker and the DeepSpeed engine, each against what it is built on.

python benchmarks/train.py [--json] [--only PART] [--rounds N]. The same model, data and seed on every side, one thread a rank: a plain
torch loop, the DeepSpeed engine alone at ZeRO 0 and 1, the whole worker under torchrun and under Ray Train (ZeRO 1). The sides take turns
of a few steps while all others are stopped (turns.py); a ratio is the median over the rounds of what two sides reached in the same round.
Then what checkpoints cost, and how long a killed worker takes to be back. No corpus is needed. About six minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from headrace import storage
from headrace.checkpoint import committed, read_manifest
from headrace.tokens.store import write_store
from rows import row, show
from turns import STARTS_S, Side, SideError, started, steps_needed, take_turns

PARTS = ("engine", "ray", "ranks", "checkpoint")
# A third of a second a step on one core of 2026. Its per-step costs are those of 2.6 M weights, at 2,048 tokens.
MODEL = {"layers": 4, "hidden": 192, "heads": 3}
VOCABULARY, LENGTH, BATCH = 2048, 256, 8
WARM = 4  # steps before the first turn
STEPS = 4  # whole steps in a turn
TAIL = 16  # steps behind the last turn, in which a worker is killed
EVERY, CHECKPOINTS = 10, 4  # steps from one checkpoint to the next, and how many of them
EQUAL = 1e-5  # nats, of losses
RECOVERY_S = 60.0  # the limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--only", choices=PARTS, help="one part: engine against plain loop, Ray against torchrun, two ranks, checkpoints")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each side; medians are printed")
    arguments = parser.parse_args()
    wanted = PARTS if arguments.only is None else (arguments.only,)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        write_tokens(folder / "tokens")
        rows: list[dict[str, Any]] = []
        if "engine" in wanted or "ray" in wanted:
            rows += one_rank(folder, arguments.rounds, wanted)
        if "ranks" in wanted:
            rows += two_ranks(folder, max(1, arguments.rounds // 2))
        if "checkpoint" in wanted:
            rows += stalls(folder)
    show("train", rows, arguments.json)


def write_tokens(folder: Path) -> None:
    """A store of documents that can be learned: each token is at most 2 above the one before."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(100, 1500, 400)
    documents = [(np.cumsum(generator.integers(0, 3, size)) % (VOCABULARY - 1) + 1).tolist() for size in sizes]
    folder.mkdir()
    write_store(folder, {"synthetic": {"train": documents}}, vocab_size=VOCABULARY, eos=0, sequence_length=LENGTH)
    (folder / "tokenizer.json").write_text("{}")


def write_spec(folder: Path, name: str, steps: int, zero: int = 1, ranks: int = 1, **checkpoint: Any) -> Path:
    """The specification of the run folder/name, in a file."""
    train = {
        "steps": steps,
        "batch": {"global": BATCH, "micro": BATCH // ranks},
        "layout": {"data": ranks, "zero": zero},
        "optimizer": {"eps": 1e-6},  # with a smaller one the first steps take rounding for a gradient
        "checkpoint": {"every": steps, "initial": False, **checkpoint},
    }
    spec = {
        "run": str(folder / name),
        "tokens": str(folder / "tokens"),
        "seed": 1,
        "mixture": {"synthetic": 1.0},
        "model": MODEL,
        "train": train,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(spec))
    return path


def side(name: str, spec: Path, *command: str) -> Side:
    metrics = Path(json.loads(spec.read_text())["run"]) / "train" / "metrics.jsonl"
    # A thread a rank on every side. Ray's workers give way to everything else on a machine; that is for whoever shares it to want.
    environment = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    return Side(name, [sys.executable, *command], metrics, environment)


def script(kind: str, spec: Path, *arguments: str) -> Side:
    return side(spec.stem, spec, str(Path(__file__).with_name("sides.py")), kind, str(spec), *arguments)


def torchrun(spec: Path, ranks: int = 1) -> Side:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
    return side(spec.stem, spec, *launcher, "-m", "headrace.train.worker", str(spec))


def one_rank(folder: Path, rounds: int, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Engine against plain loop, worker under Ray Train against torchrun, their starts, and a worker that is killed."""
    turns = steps_needed(WARM, rounds, STEPS)
    steps, every = turns + TAIL, {"every": turns}
    run: dict[str, Side] = {}
    if "engine" in wanted:
        run["plain"] = script("plain", write_spec(folder, "plain", steps))
        run |= {name: script("engine", write_spec(folder, name, steps, zero=zero)) for zero, name in enumerate(("zero 0", "zero 1"))}
    run["torchrun"] = torchrun(write_spec(folder, "torchrun", steps, **every))
    if "ray" in wanted:
        run["ray"] = script("ray", write_spec(folder, "ray", steps, **every), "1")
    rows = []
    with started(list(run.values()), WARM):
        speeds = take_turns(list(run.values()), rounds, STEPS)
        if "engine" in wanted:
            for zero in (0, 1):
                pair = run[f"zero {zero}"], run["plain"]
                rows.append(compared(f"engine alone, ZeRO {zero}", "a plain torch loop", *pair, speeds, key="plain"))
            rows.append(compared("worker under torchrun, ZeRO 1", "a plain torch loop", run["torchrun"], run["plain"], speeds))
        if "ray" in wanted:
            pair = run["ray"], run["torchrun"]
            rows.append(compared("worker under Ray Train, ZeRO 1", "the same under torchrun", *pair, speeds, key="torchrun"))
            rows.append(starts(*pair))
            run["torchrun"].wait_for(steps)
            run["torchrun"].end()
            rows.append(recovery(*pair, steps))
    return rows


def two_ranks(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """The same with two ranks: they share this machine's cores with Ray's own processes, so no floor is put to it."""
    steps = steps_needed(WARM, rounds, STEPS)
    ours = script("ray", write_spec(folder, "ray two", steps, ranks=2), "2")
    theirs = torchrun(write_spec(folder, "torchrun two", steps, ranks=2), ranks=2)
    with started([theirs, ours], WARM):
        speeds = take_turns([theirs, ours], rounds, STEPS)
        for each in (theirs, ours):
            each.wait_for(steps)
            each.end()
    return [compared("worker under Ray Train, two ranks", "the same under torchrun", ours, theirs, speeds)]


def compared(work: str, against: str, ours: Side, theirs: Side, speeds: dict[str, list[float]], key: str | None = None) -> dict[str, Any]:
    """A row of tokens a second."""
    ratios = [our / their for our, their in zip(speeds[ours.name], speeds[theirs.name], strict=True)]
    least = WARM + len(ratios) * (STEPS + 1)
    apart = furthest(ours, theirs, least)
    told = f"{against}; rounds {min(ratios):.3f} to {max(ratios):.3f}x; losses of {least} steps apart by {apart:.0e}"
    ours_s, theirs_s = (statistics.median(speeds[each.name]) for each in (ours, theirs))
    rounds = [round(ratio, 4) for ratio in ratios]
    return row(work, told, statistics.median(ratios), ours_s, theirs_s, "tokens/s", apart <= EQUAL, key=key, rounds=rounds)


def furthest(one: Side, other: Side, steps: int) -> float:
    """The largest difference of two sides' losses over the steps 1, 2, ..., of which there must be so many."""
    both = [{line["step"]: line["loss"] for line in each.lines()} for each in (one, other)]
    return max(abs(both[0].get(step, float("inf")) - both[1].get(step, 0.0)) for step in range(1, steps + 1))


def starts(ours: Side, theirs: Side) -> dict[str, Any]:
    """From the call of `fit`, or of torchrun, to the first step's end; each broken down."""
    mark = storage.read_json(ours.metrics.parent.parent / "ray.json")
    begins = {ours.name: mark["fit"], theirs.name: theirs.began}
    seconds = {each.name: each.began + each.first_step_s - begins[each.name] for each in (ours, theirs)}
    parts = {each.name: laps(each, 0, begins[each.name], begins[each.name] + seconds[each.name]) for each in (ours, theirs)}
    told = "; ".join(f"{name}: {listed(found)}" for name, found in parts.items())
    against = f"the same under torchrun; {told}; the start of a local Ray, {mark['start_s']:.1f} s, comes on top"
    mine, their = seconds[ours.name], seconds[theirs.name]
    same = furthest(ours, theirs, 1) <= EQUAL
    return row(
        "start to the first step, Ray Train", against, their / mine, mine, their, "s", same, start_of_ray=mark["start_s"], parts=parts
    )


def laps(side: Side, start: int, begin: float, end: float) -> dict[str, float]:
    """Seconds of the parts of a worker's n-th start; both ends in seconds since the epoch."""
    line = storage.read_lines(side.metrics.with_name("workers.jsonl"))[start]
    worker: dict[str, float] = line["start_seconds"]
    return {"until the worker begins": line["time"] - sum(worker.values()) - begin, **worker, "first step": end - line["time"]}


def listed(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items())


def recovery(ours: Side, theirs: Side, steps: int) -> dict[str, Any]:
    """A worker of Ray Train is killed in a step behind its checkpoint: from there to the end of the next step that is taken."""
    checkpoints = ours.metrics.parent / "checkpoints"
    ours.go()
    wait_until(lambda: bool(committed(checkpoints)), ours)
    ours.wait_for(len(ours.lines()) + 1)
    worker = training_process(ours)
    killed = time.time()
    worker.kill()
    workers = ours.metrics.with_name("workers.jsonl")
    wait_until(lambda: len(storage.read_lines(workers)) == 2, ours)
    restored = storage.read_lines(workers)[1]["restored_step"] or 0
    ours.wait_for(restored + 1)
    back = time.time()
    ours.wait_for(steps)
    ours.end()
    parts = laps(ours, 1, killed, back)
    apart = furthest(ours, theirs, steps)
    told = f"the limit; {listed(parts)}; resumed from step {restored}, losses apart from the unbroken run's by {apart:.0e}"
    seconds = back - killed
    work = "recovery of a killed Ray worker"
    return row(work, told, RECOVERY_S / seconds, seconds, RECOVERY_S, "s", apart <= EQUAL, parts=parts)


def wait_until(true: Any, side: Side) -> None:
    deadline = time.monotonic() + STARTS_S
    while not true():
        if time.monotonic() > deadline:
            raise SideError(f"{side.name}: what was waited for did not come in {STARTS_S:.0f} s")
        time.sleep(0.02)


def training_process(side: Side) -> psutil.Process:
    """The process of Ray's that trains: the one of its actors that has worked the longest."""
    found = []
    for process in side.processes():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::"):
                found.append((sum(process.cpu_times()[:2]), process))
    return max(found, key=lambda each: each[0])[1]


def stalls(folder: Path) -> list[dict[str, Any]]:
    """What checkpoints cost, written behind the next steps and written while training waits."""
    steps = EVERY * CHECKPOINTS
    shares, told, weights = {}, {}, {}
    for name, asynchronous in (("asynchronous", True), ("synchronous", False)):
        run = torchrun(write_spec(folder, name, steps + EVERY // 2, every=EVERY, asynchronous=asynchronous))
        with started([run], 1):
            run.wait_for(steps + EVERY // 2)
            run.end()
        seconds = [BATCH * LENGTH / line["tokens_per_s"] for line in run.lines()]
        lines = [line for line in storage.read_lines(run.metrics.with_name("checkpoints.jsonl")) if line["step"] <= steps]
        stood = sum(line["stall_s"] + line["waited_s"] for line in lines)
        shares[name] = stood / sum(seconds[:steps])
        behind = [seconds[line["step"]] for line in lines]  # the steps in which a checkpoint is written, or was just now
        others = [second for place, second in enumerate(seconds[1:], 1) if place % EVERY]
        slower = statistics.median(behind) / statistics.median(others)
        written = statistics.median(line["written_s"] for line in lines)
        told[name] = f"{name}: {stood / len(lines):.3f} s each, written in {written:.2f} s, the step behind it {slower:.2f}x as long"
        last = committed(run.metrics.parent / "checkpoints")[-1]
        weights[name] = [(file["path"], file["sha256"]) for file in read_manifest(last)["files"]]
    ours, theirs = shares["asynchronous"], shares["synchronous"]
    against = f"synchronous, every {EVERY} steps; {told['asynchronous']}; {told['synchronous']}"
    same = weights["asynchronous"] == weights["synchronous"]
    return [row("checkpoint stall, share of step time", against, theirs / ours, 100 * ours, 100 * theirs, "%", same)]


if __name__ == "__main__":
    main()
