"""RUN/events.jsonl: what happened, one object a line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace import storage

EventSink = Callable[..., None]


def event_log(run: Path) -> EventSink:
    """A function `event(stage, event, **what)` that appends a line."""

    def event(stage: str, event: str, **what: Any) -> None:
        storage.append_line(run / "events.jsonl", {"time": round(time.time(), 3), "stage": stage, "event": event, **what})

    return event
