"""How training went, from metrics.jsonl: a curve that fits on a page however long the run was."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from headrace import storage
from headrace.report.numbers import finite

CURVE_POINTS = 300  # finer than that, the curve is drawn thicker, not better
INCIDENTS = 50  # lines that the page shows, the newest
CURVES = ("loss", "lr", "grad_norm", "tokens_per_s")


def training(run: Path) -> dict[str, Any] | None:
    """Totals and curves of a run's optimizer steps; None before the first one."""
    rows = [row for row in storage.read_lines(run / "train" / "metrics.jsonl") if isinstance(row, dict) and "step" in row]
    if not rows:
        return None
    starts = storage.read_lines(run / "train" / "workers.jsonl")
    seconds = [_seconds(rows, place) for place in range(len(rows))]
    known = [s for s in seconds if s is not None]
    waited = sum(wait for row in rows if (wait := finite(row.get("data_wait_s"))) is not None)
    return {
        "steps": rows[-1]["step"],
        "tokens": rows[-1].get("tokens"),
        "first_loss": finite(rows[0].get("loss")),
        "last_loss": finite(rows[-1].get("loss")),
        "seconds": sum(known) if known else None,
        "tokens_per_s": _median(rows, "tokens_per_s"),
        "mfu": _median(rows, "mfu"),
        "data_wait_share": waited / sum(known) if sum(known) > 0 else None,
        "not_finite": [row["step"] for row in rows if not row.get("skipped") and not _is_finite(row)][:10],
        "skipped": sum(row.get("skipped") not in (None, "overflow") for row in rows),  # fp16 finds its loss scale by overflows
        "starts": len(starts),
        "start_seconds": [start.get("start_seconds") for start in starts],
        "resumed_from": [start["restored_step"] for start in starts if start.get("restored_step") is not None],
        "checkpoints": _checkpoints(run, sum(known)),
        "incidents": storage.read_lines(run / "train" / "incidents.jsonl")[-INCIDENTS:],
        "curve": _curve(rows),
    }


def _is_finite(row: dict[str, Any]) -> bool:
    return finite(row.get("loss")) is not None and finite(row.get("grad_norm")) is not None


def _checkpoints(run: Path, stepping: float) -> dict[str, Any] | None:
    """How many were written, how long training stood still for them, and what share of the time of its steps that is."""
    rows = storage.read_lines(run / "train" / "checkpoints.jsonl")
    if not rows:
        return None
    stood = sum(row["stall_s"] + row["waited_s"] for row in rows)
    return {"written": len(rows), "stall_seconds": stood, "share": stood / stepping if stepping else None, "every": rows[-1]["every"]}


def _seconds(rows: list[dict[str, Any]], place: int) -> float | None:
    """Seconds of one step, from its tokens and its speed."""
    row = rows[place]
    speed, tokens = finite(row.get("tokens_per_s")), finite(row.get("tokens"))
    if not speed or tokens is None:
        return None
    if place:
        before = finite(rows[place - 1].get("tokens")) or 0.0
    else:
        before = tokens * (1 - 1 / max(1, row["step"]))
    return (tokens - before) / speed


def _median(rows: list[dict[str, Any]], key: str) -> float | None:
    values = [value for row in rows if (value := finite(row.get(key))) is not None]
    return statistics.median(values) if values else None


def _curve(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over at most 300 stretches of equal length, with the loss's least and largest; the step is the stretch's last."""
    width = -(-len(rows) // CURVE_POINTS)
    curve = []
    for first in range(0, len(rows), width):
        part = rows[first : first + width]
        point: dict[str, Any] = {"step": part[-1]["step"]}
        for key in CURVES:
            values = [value for row in part if (value := finite(row.get(key))) is not None]
            point[key] = statistics.fmean(values) if values else None
            if key == "loss":
                point["loss_min"], point["loss_max"] = (min(values), max(values)) if values else (None, None)
        curve.append(point)
    return curve
