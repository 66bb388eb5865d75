"""What a run is doing, told on stderr: each event as it comes, and training every ten seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY_S = 10.0


class RunProgress:
    """Follows the run's append-only files from where they end now; a bar for training on a terminal, lines elsewhere."""

    def __init__(self, run: Path, steps: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._events = Tail(run / "events.jsonl")
        self._metrics = Tail(run / "train" / "metrics.jsonl")
        self._events.lines()
        self._metrics.lines()
        self._steps = steps
        self._shown = time.monotonic()
        self._last: dict[str, Any] | None = None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("train", total=steps, visible=False)

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self) -> None:
        """Print what is new."""
        for line in self._events.lines():
            text = describe(line)
            if text:
                self._console.print(text, soft_wrap=True)
        for line in self._metrics.lines():
            self._last = line
        if self._last is None:
            return
        step, text = self._last["step"], training_line(self._last)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=step, description=text, visible=step < self._steps)
            self._last = None
        elif time.monotonic() - self._shown > EVERY_S:
            self._console.print(text, soft_wrap=True)
            self._last, self._shown = None, time.monotonic()


def training_line(line: dict[str, Any]) -> str:
    return f"train: step {line['step']:,}, loss {line['loss']:.3f}, {line['tokens']:,} tokens, {line['tokens_per_s']:,.0f} tokens/s"


def describe(event: dict[str, Any]) -> str | None:
    """One line for a person, or None for what is of no interest while the run is at work."""
    stage, what = event["stage"], event["event"]
    if what == "finished" and "rows_in" in event:
        return f"{stage}: {event['rows_in']:,} documents in, {event['rows_out']:,} out, {event['seconds']:.1f} s"
    if what == "skipped":
        return f"{stage}: already done"
    if what == "started":
        return f"{stage}: started"
    if what == "finished":
        return f"{stage}: done, {event['seconds']:.1f} s"
    if what == "submitted":
        return f"{stage}: job {event['job']} submitted"
    if what == "failed":
        return f"{stage}: failed: {event.get('message')}"
    return None


class Tail:
    """New whole JSON lines of a growing file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def lines(self) -> list[dict[str, Any]]:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return []
        if size < self._offset:  # a resume has dropped the lines after the restored step
            self._offset = 0
        with self._path.open("rb") as handle:
            handle.seek(self._offset)
            content = handle.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found
