"""RUN/events.jsonl: what happened, one object a line: time (seconds since 1970), stage, event, and the fields of that event.

`EVENTS` is the schema. A stage is one of the data stages, or "data", "train", "evaluate", "baselines" (jobs), "cluster", "shutdown".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace import storage

EventSink = Callable[..., None]
Kinds = tuple[type, ...]

TEXT: Kinds = (str,)
COUNT: Kinds = (int,)
NUMBER: Kinds = (int, float)
NUMBER_OR_NULL: Kinds = (int, float, type(None))
COUNT_OR_NULL: Kinds = (int, type(None))
BASE: Mapping[str, Kinds] = {"time": NUMBER, "stage": TEXT, "event": TEXT}


@dataclass(frozen=True)
class Event:
    """What an event means, the fields that every one of it has, and those that it may have; seconds are written `_s` or `seconds`."""

    meaning: str
    fields: Mapping[str, Kinds] = field(default_factory=dict)
    optional: Mapping[str, Kinds] = field(default_factory=dict)


EVENTS: Mapping[str, Event] = {
    "started": Event("a data stage begins", {"fingerprint": TEXT}),
    "skipped": Event("a data stage is there from before", {"fingerprint": TEXT}),
    "finished": Event(
        "a data stage is committed; the cluster is up; it is down",
        {"seconds": NUMBER},
        {"fingerprint": TEXT, "peak_rss_bytes": COUNT_OR_NULL, "rows_in": COUNT, "rows_out": COUNT, "address": TEXT},
    ),
    "progress": Event(
        "so much of a stage is done; `unit` says of what: units of a data stage's pass, steps, or results. Rates are of this driver's time",
        {"done": COUNT, "total": COUNT, "unit": TEXT, "elapsed_s": NUMBER, "left_s": NUMBER_OR_NULL},
        {
            "phase": TEXT,
            "documents_per_s": NUMBER,
            "bytes_per_s": NUMBER,
            "tokens": COUNT,
            "tokens_per_s": NUMBER,
            "loss": NUMBER_OR_NULL,
        },
    ),
    "checkpoint": Event(
        "training published one; what it cost",
        {"step": COUNT, "bytes": COUNT, "stall_s": NUMBER, "waited_s": NUMBER, "written_s": NUMBER},
    ),
    "incident": Event(
        "what went wrong with the workers, but for single skipped steps, and what was done; train/incidents.jsonl has more",
        {"kind": TEXT, "message": TEXT},
    ),
    "evaluation": Event(
        "a checkpoint has a result of a suite; failed: it was given up",
        {"checkpoint": TEXT, "suite": TEXT, "status": TEXT},
        {"bits_per_byte": NUMBER_OR_NULL, "validation_loss": NUMBER_OR_NULL, "reason": TEXT},
    ),
    "submitted": Event("a job goes to the cluster", {"job": TEXT}),
    "adopted": Event("a job that an earlier driver submitted is still at work", {"job": TEXT}),
    "job finished": Event("a job is over and its work is there", {"job": TEXT}),
    "failed": Event("an attempt of a job failed", {"job": TEXT, "exit_code": COUNT_OR_NULL, "message": TEXT}),
    "retried": Event("a job that failed is tried again", {"job": TEXT}),
}


def event_log(run: Path) -> EventSink:
    """A function `event(stage, event, **what)` that appends a line."""

    def event(stage: str, event: str, **what: Any) -> None:
        storage.append_line(run / "events.jsonl", {"time": round(time.time(), 3), "stage": stage, "event": event, **what})

    return event


def mistakes(event: Mapping[str, Any]) -> list[str]:
    """In what an event departs from the schema, a sentence each; none if it is one of `EVENTS`."""
    known = EVENTS.get(str(event.get("event")))
    if known is None:
        return [f"event = {event.get('event')!r}: not one of {', '.join(EVENTS)}"]
    required = {**BASE, **known.fields}
    allowed = {**required, **known.optional}
    found = [f"{name}: absent" for name in required if name not in event]
    found += [f"{name}: no field of {event['event']!r}" for name in event if name not in allowed]
    for name in event.keys() & allowed.keys():
        if not isinstance(event[name], allowed[name]) or isinstance(event[name], bool):
            found.append(f"{name} = {event[name]!r}: expected {' or '.join(kind.__name__ for kind in allowed[name])}")
    return sorted(found)
