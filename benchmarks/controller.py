"""The controller on a large run whose cluster fails at random. A simulation: only the controller, and the commits of the jobs, are real.

python benchmarks/controller.py [--json] [--units N] [--checkpoints N] [--seed N]. 10,000 units, 500 checkpoints in two suites each and
so 1,003 jobs, two controllers at once, either of which is killed now and then in the middle of what it does to storage or asks of the
cluster. Answers are lost, lists are stale, submissions take effect whose answer is lost, jobs die, are called dead while they work, are
cut off and come back to commit, and the cluster's head is lost with all that it knew (`simulated_cluster.py`). The files are real.

Against limits: the 99th percentile of the seconds of a reconcile, peak memory, and one commit of each artifact. About three minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace import pipeline, storage
from headrace.config import validate
from headrace.control.cluster import Running
from headrace.control.controller import Controller
from headrace.control.jobs import Jobs
from headrace.events import event_log
from headrace.run import RunConfig, resolved_yaml
from rows import row, show
from simulated_cluster import Rates, SimulatedCluster, Tally

UNITS, CHECKPOINTS = 10_000, 500
LIMIT_S, LIMIT_BYTES = 2.0, 1e9
KILLED_EVERY = 150  # reconciles, of one controller, on average
MOST_OPERATIONS = 16  # of a reconcile in whose course a controller is killed
COUNTED = (
    *("append_line", "breaches", "create", "file_entry", "holding", "names", "note", "present", "read_all", "read_bytes", "read_json"),
    *("read_lines", "remove", "remove_tree", "touched", "write_bytes", "write_json"),
)


class Killed(BaseException):
    """The end of a controller's process, wherever it was."""


@dataclass
class Outcome:
    """What a simulated run came to."""

    seconds: list[float] = field(default_factory=list)  # of each reconcile
    cpu_s: list[float] = field(default_factory=list)  # of a processor, likewise
    first_s: list[float] = field(default_factory=list)  # of those that were their controller's first, which knows nothing yet
    operations: list[int] = field(default_factory=list)  # of storage, likewise
    requests: list[int] = field(default_factory=list)  # to the cluster, likewise
    kills: int = 0
    attempts: int = 0
    failed_results: int = 0
    simulated_s: float = 0.0
    peak_bytes: int = 0
    before_bytes: int = 0
    tally: Tally = field(default_factory=Tally)


class Operations:
    """Counts calls of `headrace.storage`, and kills the caller at one of them, before or after it took effect."""

    def __init__(self) -> None:
        self.count = 0
        self.kill_at: int | None = None
        self.counting = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        kept = {name: getattr(storage, name) for name in COUNTED}
        for name, function in kept.items():
            setattr(storage, name, self._around(function))
        try:
            yield
        finally:
            for name, function in kept.items():
                setattr(storage, name, function)

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if not self.counting:
                return function(*arguments, **named)
            self.count += 1
            if self.count == self.kill_at and self.count % 2:
                raise Killed
            found = function(*arguments, **named)
            if self.count == self.kill_at:
                raise Killed
            return found

        return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--units", type=int, default=UNITS, help="of each data stage")
    parser.add_argument("--checkpoints", type=int, default=CHECKPOINTS, help="each is owed two results")
    parser.add_argument("--seed", type=int, default=0, help="of what goes wrong")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        config = configured(Path(name), arguments.checkpoints)
        outcome = simulate(config, arguments.units, arguments.seed, Rates())
        wrong = breaches(config, outcome)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    show("controller", rows(arguments.units, arguments.checkpoints, outcome, not wrong), arguments.json)


def configured(folder: Path, checkpoints: int) -> RunConfig:
    """A run below a folder that owes two results a checkpoint, one a step."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "raw.jsonl").write_text(json.dumps({"text": "the river ran past an old mill"}) + "\n")
    (folder / "set.jsonl").write_text(json.dumps({"q": "what ran past the mill"}) + "\n")
    values = {
        "out": str(folder / "run"),
        "sources": [{"name": "mill", "kind": "prose", "path": str(folder / "raw.jsonl"), "filters": []}],
        "dedup": {"document": None},
        "decontaminate": {"benchmarks": [{"name": "set", "path": str(folder / "set.jsonl")}]},
        "tokens": {"vocab_size": 384, "sequence_length": 32},
        "model": {"layers": 1, "hidden": 16, "heads": 2},
        "train": {"steps": checkpoints, "layout": {"data": 1}},
        "evaluate": {"max_tokens": 1000, "benchmark_items": 10},
    }
    return validate(RunConfig, values, "simulation")


def simulate(config: RunConfig, units: int, seed: int, rates: Rates) -> Outcome:
    """Bring a run to its end on a simulated cluster, by two controllers that are killed and started again."""
    run = storage.writable_folder(config.folder, "out")
    pipeline.refer(config)
    storage.note(run / "config.yaml", resolved_yaml(config).encode())
    cluster, outcome, operations = SimulatedCluster(config, units, seed, rates), Outcome(), Operations()
    outcome.tally = cluster.tally
    outcome.before_bytes = peak_memory()
    began = cluster.now

    def controller() -> Controller:
        jobs = Jobs(run, Running("http://simulated:1", None, None), cluster)
        return Controller(config, jobs, event_log(run), False, "scores", clock=lambda: cluster.now)

    controllers: list[Controller | None] = [None, None]
    wait = [0.0, 0.0]
    with operations.watched():
        while True:
            number = min((0, 1), key=wait.__getitem__)
            cluster.advance(wait[number])
            wait = [each - wait[number] for each in wait]
            operations.count, requests = 0, cluster.tally.requests
            killed = cluster.random.random() < 1 / KILLED_EVERY
            operations.kill_at = cluster.random.randint(1, MOST_OPERATIONS) if killed else None
            started, busy = time.perf_counter(), time.process_time()
            operations.counting = True
            first = controllers[number] is None
            try:
                one = controllers[number] = controllers[number] or controller()
                plan = one.reconcile()
            except Killed:
                outcome.kills += 1
                controllers[number], wait[number] = None, cluster.random.uniform(1, 30)
                continue
            finally:
                operations.counting = False
            outcome.seconds.append(time.perf_counter() - started)
            outcome.cpu_s.append(time.process_time() - busy)
            outcome.first_s += outcome.seconds[-1:] if first else []
            outcome.operations.append(operations.count)
            outcome.requests.append(cluster.tally.requests - requests)
            if plan.finished:
                break
            wait[number] = plan.look_in_s + cluster.random.uniform(0, 0.5)
    while cluster.processes:  # what was cut off comes back when all is done
        cluster.advance(10.0)
    outcome.simulated_s, outcome.peak_bytes = cluster.now - began, peak_memory()
    folder = run / "control" / "attempts"
    outcome.attempts = sum(1 for job in storage.names(folder) for name in storage.names(folder / job) if ".end." not in name)
    results = [
        run / "eval" / name / file
        for name in storage.names(run / "eval")
        if name.startswith("step-")
        for file in storage.names(run / "eval" / name)
    ]
    outcome.failed_results = sum(storage.read_json(path).get("status") == "failed" for path in results)
    return outcome


def breaches(config: RunConfig, outcome: Outcome) -> list[str]:
    """In what a simulated run departs from one commit of each artifact, a sentence each."""
    steps, tally = config.train.steps, outcome.tally
    found = [f"{name}: {count} commits" for name, count in tally.commits.items() if count != 1]
    stages = set(pipeline.stage_plans(config))
    evaluated = sum(name.startswith("eval/step-") for name in tally.commits)
    expected = len(stages) + steps + (2 * steps - outcome.failed_results) + 1
    if len(tally.commits) != expected or evaluated + outcome.failed_results != 2 * steps:
        found.append(f"{len(tally.commits)} artifacts instead of {expected}, {evaluated} results, {outcome.failed_results} failed")
    if tally.doubled:
        found.append(f"{tally.doubled} attempts were begun while the one before was at work")
    return found


def peak_memory() -> int:
    """Peak resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def rows(units: int, checkpoints: int, outcome: Outcome, right: bool) -> list[dict[str, Any]]:
    ordered, busy = sorted(outcome.seconds), sorted(outcome.cpu_s)
    p99 = ordered[int(0.99 * (len(ordered) - 1))]
    tally = outcome.tally
    most = max(tally.commits.values())
    about = {
        "units": units,
        "jobs": 2 * checkpoints + 3,
        "checkpoints": checkpoints,
        "attempts": outcome.attempts,
        "reconciles": len(ordered),
        "controllers_killed": outcome.kills,
        "heads_lost": tally.heads_lost,
        "fates": dict(sorted(tally.fates.items())),
        "commits_refused": tally.refused,
        "given_up": outcome.failed_results,
        "simulated_s": round(outcome.simulated_s),
    }
    p50, last = statistics.median(ordered), ordered[-1]
    operations, asked = sorted(outcome.operations), sorted(outcome.requests)
    typical = {"p50": statistics.median(operations), "p99": operations[int(0.99 * (len(operations) - 1))], "most": operations[-1]}
    grown = outcome.peak_bytes - outcome.before_bytes
    return [
        row(
            "a reconcile, 99th percentile",
            f"a limit of {LIMIT_S} s (simulation)",
            LIMIT_S / p99,
            p99,
            LIMIT_S,
            "s",
            right,
            p50_s=round(p50, 4),
            longest_s=round(last, 4),
            p99_cpu_s=round(busy[int(0.99 * (len(busy) - 1))], 4),
            first_p50_s=round(statistics.median(outcome.first_s), 4),
            storage_operations=typical,
            requests_p50=statistics.median(asked),
            **about,
        ),
        row(
            "peak memory, libraries included",
            "a limit of 1 GB (simulation)",
            LIMIT_BYTES / outcome.peak_bytes,
            outcome.peak_bytes / 1e6,
            LIMIT_BYTES / 1e6,
            "MB",
            right,
            of_the_run_mb=round(grown / 1e6, 1),
        ),
        row(
            "commits of an artifact, at most", "exactly one (simulation)", 1 / most, most, 1, "commits", right, artifacts=len(tally.commits)
        ),
    ]


if __name__ == "__main__":
    main()
