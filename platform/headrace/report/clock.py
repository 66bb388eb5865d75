"""Where the time went: every piece of work on the run's own clock, which stands still between one driver and the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace import storage
from headrace.artifact import STAGES
from headrace.report.numbers import finite

ROWS = ("cluster", "data", *STAGES, "train", "baselines", "evaluate", "shutdown")


def clock(run: Path, events: list[dict[str, Any]], stages: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds of the whole run and of each of its parts.

    Returns:
        {"total_seconds", "rows": [{"row", "kind": "job" | "stage" | "other", "runs", "startup_seconds", "seconds", "share",
        "peak_rss_bytes"}], "spans": [{"row", "begin", "work", "end", "title"}]}. `seconds` of a job includes its start-up: from its
        submission to its first line of code. Jobs overlap, so shares of `total_seconds` may add up to more than one.
    """
    events = [event for event in events if finite(event.get("time")) is not None and isinstance(event.get("stage"), str)]
    elapsed = Elapsed(events)
    entered = [(line.get("job"), finite(line.get("entered")) or 0.0) for line in storage.read_lines(run / "control" / "jobs.jsonl")]
    spans: list[dict[str, Any]] = []
    submitted: dict[str, tuple[str, float]] = {}

    def close(job: str, end: float) -> None:
        stage, begin = submitted.pop(job)
        work = next((at for name, at in entered if name == job and begin <= at <= end), begin)
        spans.append(_span(elapsed, stage, "job", begin, work, end, job))

    peaks = _peaks_of_jobs(run)
    for event in events:
        stage, what, at = event["stage"], event["event"], event["time"]
        job = event.get("job")
        if what == "submitted" and job:
            if job in submitted:  # under the same name on an earlier cluster, whose driver was killed
                close(job, elapsed.end_of_session(submitted[job][1]))
            submitted[job] = (stage, at)
        elif what in {"job finished", "failed"} and job in submitted:
            close(job, at)
        elif what == "finished" and (seconds := finite(event.get("seconds"))) is not None:
            kind = "other" if stage in {"cluster", "shutdown"} else "stage"
            spans.append(_span(elapsed, stage, kind, at - seconds, at - seconds, at, stage))
            if finite(event.get("peak_rss_bytes")) is not None:
                peaks[stage] = max(peaks.get(stage, 0), int(event["peak_rss_bytes"]))
    for job in list(submitted):  # at work until the last that was heard of its driver
        close(job, elapsed.end_of_session(submitted[job][1]))
    timed = {span["row"] for span in spans}
    rows = [_row(name, spans, elapsed.total, peaks.get(name)) for name in sorted(timed, key=_place)]
    rows += [_untimed(run, stage, elapsed.total) for stage in stages if stage["stage"] not in timed]
    rows.sort(key=lambda row: _place(row["row"]))
    return {
        "total_seconds": elapsed.total or None,
        "rows": rows,
        "spans": sorted(spans, key=lambda span: (_place(span["row"]), span["begin"])),
    }


def _peaks_of_jobs(run: Path) -> dict[str, int]:
    """Largest peak memory of training and of the jobs that score: it stands in the metrics, and in the results."""
    steps = storage.read_lines(run / "train" / "metrics.jsonl")
    training = max((int(line.get("peak_rss_bytes") or 0) for line in steps), default=0)
    there = storage.names(run / "eval")
    scored = [run / "eval" / name / suite for name in there if name.startswith("step-") for suite in storage.names(run / "eval" / name)]
    results = {"evaluate": scored, "baselines": [run / "eval" / name for name in there if name == "baselines.json"]}
    found = {row: [value.get("peak_rss_bytes") or 0 for value in storage.read_all(paths)] for row, paths in results.items()}
    return {row: max(peaks) for row, peaks in {**found, "train": [training]}.items() if any(peaks)}


class Elapsed:
    """Times of day as seconds since the run began, without the time between its drivers.

    A driver's session begins with the start of its cluster and ends with its last event.
    """

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.sessions: list[tuple[float, float, float]] = []  # first time, last time, seconds before it
        self.total = 0.0
        begin = last = None
        for event in events:
            at = float(event["time"])
            first = at - (finite(event.get("seconds")) or 0.0)
            if begin is None or last is None or (event["stage"] == "cluster" and event["event"] == "finished"):
                self._close(begin, last)
                begin = max(first, last) if last is not None else first
            last = at
        self._close(begin, last)

    def _close(self, begin: float | None, last: float | None) -> None:
        if begin is not None and last is not None:
            self.sessions.append((begin, last, self.total))
            self.total += last - begin

    def __call__(self, time: float) -> float:
        """Seconds on the run's clock; times between sessions are the end of the one before."""
        found = 0.0
        for begin, last, before in self.sessions:
            if time >= begin:
                found = before + min(time, last) - begin
        return found

    def end_of_session(self, time: float) -> float:
        return next((last for begin, last, _ in self.sessions if begin <= time <= last), time)


def _span(elapsed: Elapsed, row: str, kind: str, begin: float, work: float, end: float, title: str) -> dict[str, Any]:
    return {"row": row, "kind": kind, "begin": elapsed(begin), "work": elapsed(work), "end": elapsed(end), "title": title}


def _row(name: str, spans: list[dict[str, Any]], total: float, peak: int | None) -> dict[str, Any]:
    own = [span for span in spans if span["row"] == name]
    seconds = sum(span["end"] - span["begin"] for span in own)
    return {
        "row": name,
        "kind": own[0]["kind"],
        "runs": len(own),
        "startup_seconds": sum(span["work"] - span["begin"] for span in own) if own[0]["kind"] == "job" else None,
        "seconds": seconds,
        "share": seconds / total if total else None,
        "peak_rss_bytes": peak,
    }


def _untimed(run: Path, stage: dict[str, Any], total: float) -> dict[str, Any]:
    """A stage without an event of its own, as after a copy of the folder: the sum over its units, which may have run side by side."""
    units = storage.read_lines(run / "data" / stage["stage"] / stage["fingerprint"] / "timings.jsonl")
    seconds = sum(finite(unit.get("seconds")) or 0.0 for unit in units)
    return {
        "row": stage["stage"],
        "kind": "stage",
        "runs": 1,
        "startup_seconds": None,
        "seconds": seconds if units else None,
        "share": seconds / total if units and total else None,
        "peak_rss_bytes": max((int(unit.get("peak_rss_bytes") or 0) for unit in units), default=None),
    }


def _place(row: str) -> tuple[int, str]:
    return (ROWS.index(row) if row in ROWS else len(ROWS), row)
