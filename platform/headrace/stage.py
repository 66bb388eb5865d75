"""Run one function over the work units of a stage: with Ray Data on a cluster, or in process."""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headrace import storage
from headrace.capacity import most_resources, resources_here

log = logging.getLogger("headrace")

Engine = Literal["ray", "local"]
Unit = Mapping[str, Any]
SHARES = 2  # of the units that each thread gets, so that one that is quick takes over from one that is slow


@dataclass(frozen=True)
class UnitResult:
    """The account of one unit: rows_in = rows_out + sum(rejected); counters are added up in the manifest's totals."""

    rows_in: int = 0
    rows_out: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)


UnitFunction = Callable[[dict[str, Any], Path], UnitResult]


@dataclass(frozen=True)
class Pass:
    """How far a stage's pass over its units is."""

    stage: str
    phase: str
    done: int  # units; at the first call those that an earlier run did
    total: int
    account: Mapping[str, Any] | None  # of the unit just done: source, rows_in, rows_out, rejected, counters; None at the first call


Listener = Callable[[Pass], None]
_listeners: contextvars.ContextVar[tuple[Listener, ...]] = contextvars.ContextVar("listeners", default=())


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Inside, `run_units` calls `listener` as a pass begins and after each of its units, in this process and this thread."""
    before = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(before)


def run_units(
    function: UnitFunction, units: Sequence[Unit], folder: Path, *, phase: str, engine: Engine, threads: int = 1
) -> list[dict[str, Any]]:
    """Apply `function(unit, scratch)` to every unit that has no done record yet; the records of all, ordered by id.

    A unit writes below a private scratch folder, its files are then moved to the same paths below `folder`, and its done record is
    written last. So a killed run loses the units under way and nothing else, and a unit that two workers ran leaves one result:
    units are pure functions, so the second writes the same bytes over the first. Several threads take a few units together, which
    then share the scratch folder and what it costs to have the disk keep their files.

    Args:
        function: a module-level function (it is sent to Ray's workers); takes a unit with an "id".
        folder: the stage's own folder, on storage that every worker reaches.
        phase: names the done records, for stages that run over their units more than once.
        threads: with the engine "local", units at once: worth it for a function that mostly works without the interpreter's lock.
    """
    done = folder / "done" / phase
    done.mkdir(parents=True, exist_ok=True)
    there = set(storage.names(done))
    missing = [dict(unit) for unit in units if f"{unit['id']}.json" not in there]
    if len(missing) < len(units):
        log.info("%s/%s: %d of %d units already done", folder.parent.name, phase, len(units) - len(missing), len(units))
    listeners = _listeners.get()

    def tell(count: int, account: Mapping[str, Any] | None) -> None:
        for listener in listeners:
            listener(Pass(folder.parent.name, phase, count, len(units), account))

    if missing:
        already = len(units) - len(missing)
        tell(already, None)
        running = _run_on_ray(function, missing, folder, phase) if engine == "ray" else _run_here(function, missing, folder, phase, threads)
        for count, account in enumerate(running, already + 1):
            tell(count, account)
    records = [done / f"{unit_id}.json" for unit_id in sorted(unit["id"] for unit in units)]
    return [each["record"] for each in storage.read_all(records)]


def run_together(function: UnitFunction, units: Sequence[dict[str, Any]], folder: Path, phase: str) -> list[dict[str, Any]]:
    """A few units, or one: work aside, publish, write the done records; their accounts."""
    accounts, seconds, written = [], [], set[Path]()
    of_unit: list[set[str]] = []
    reset_peak_memory()
    with storage.scratch_folder(folder, f"{phase}-{units[0]['id']}") as scratch:
        for unit in units:
            started = time.monotonic()
            result = function(unit, scratch)
            assert result.rows_in == result.rows_out + sum(result.rejected.values()), f"{unit['id']}: {result}"
            accounts.append(_account(unit, result))
            new = {path for path in scratch.rglob("*") if path.is_file()} - written
            of_unit.append({path.relative_to(scratch).as_posix() for path in new})
            written |= new
            seconds.append(time.monotonic() - started)
        started = time.monotonic()
        files = storage.publish_tree(scratch, folder)
    published, peak = (time.monotonic() - started) / len(units), peak_memory()
    done = {}
    for account, own, worked in zip(accounts, of_unit, seconds):
        record = {**account, "files": [entry for entry in files if entry["path"] in own]}
        timing = {"seconds": round(worked + published, 4), "peak_rss_bytes": peak}
        done[folder / "done" / phase / f"{account['id']}.json"] = {"record": record, "timing": timing}
    storage.write_jsons(done)
    return accounts


def _account(unit: Unit, result: UnitResult) -> dict[str, Any]:
    return {
        "id": unit["id"],
        **({"source": unit["source"]} if "source" in unit else {}),
        "rows_in": result.rows_in,
        "rows_out": result.rows_out,
        "rejected": {reason: rows for reason, rows in sorted(result.rejected.items()) if rows},
        "counters": dict(sorted(result.counters.items())),
    }


def _run_here(function: UnitFunction, units: list[dict[str, Any]], folder: Path, phase: str, threads: int) -> Iterator[dict[str, Any]]:
    if threads == 1 or len(units) == 1:
        for unit in units:
            yield from run_together(function, [unit], folder, phase)
        return
    share = max(1, len(units) // (threads * SHARES))
    groups = [units[start : start + share] for start in range(0, len(units), share)]
    with ThreadPoolExecutor(threads) as pool:
        pending = [pool.submit(run_together, function, group, folder, phase) for group in groups]
        try:
            for finished in as_completed(pending):
                yield from finished.result()
        finally:  # a unit failed, or the caller has gone: those that have not begun are not begun
            pool.shutdown(wait=True, cancel_futures=True)


def _run_on_ray(function: UnitFunction, units: list[dict[str, Any]], folder: Path, phase: str) -> Iterator[dict[str, Any]]:
    import ray

    sent, place = storage.portable(units), storage.portable(folder)

    def apply(row: dict[str, Any]) -> dict[str, Any]:
        unit = storage.resolved(sent[row["id"]])
        (account,) = run_together(function, [unit], Path(storage.resolved(place)), phase)
        return {"account": json.dumps(account)}

    # One unit a block: the unit is what is scheduled, lost and done again. Its number and its account travel through the object store.
    pending = ray.data.range(len(units), override_num_blocks=len(units)).map(apply, num_cpus=1, resources=data_slot())
    shown = time.monotonic()
    for finished, row in enumerate(pending.iter_rows(), 1):
        if time.monotonic() - shown > 10:
            log.info("%s/%s: %d of %d units", folder.parent.name, phase, finished, len(units))
            shown = time.monotonic()
        yield json.loads(row["account"])


def data_slot() -> dict[str, float]:
    """The logical resource that keeps data work on the nodes declared for it, where the cluster declares one."""
    return {"data": 1} if most_resources().get("data") else {}


def data_cpus_here() -> int:
    """CPUs for data work on this node: none where the cluster has other nodes for it."""
    here = resources_here()
    return int(here.get("CPU", 0)) if data_slot().keys() <= here.keys() else 0


def reset_peak_memory() -> None:
    """Start the process's peak memory anew: Ray's workers serve many units, and each reports its own peak."""
    with contextlib.suppress(OSError), Path("/proc/self/clear_refs").open("w") as handle:
        handle.write("5")


def peak_memory() -> int:
    """Peak resident memory of this process since `reset_peak_memory`, in bytes; that of its whole life where /proc is absent."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
