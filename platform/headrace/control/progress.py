"""What a run is doing, told on stderr: each event as it comes, and how far each stage is, with its rate and the time it still takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from headrace.observe.follow import Follower
from headrace.observe.pace import Pace, clock, progress_line, rates
from headrace.observe.tail import Tail

EVERY_S = 10.0


class RunProgress:
    """Follows the run's append-only files from where they end now; a bar for each stage at work on a terminal, lines elsewhere."""

    def __init__(self, run: Path, steps: int, follower: Follower | None = None) -> None:
        """Args:
        steps: of training.
        follower: what else is to look at the run's files each time that progress is shown.
        """
        self._follower = follower
        self._console = Console(stderr=True, highlight=False)
        self._events = Tail(run / "events.jsonl", from_end=True)
        self._metrics = Tail(run / "train" / "metrics.jsonl", from_end=True)
        self._steps = steps
        self._pace = Pace()
        self._shown = time.monotonic()
        self._news: dict[str, dict[str, Any]] = {}  # progress of each stage that is not told yet
        self._left: dict[str, float] = {}  # when each stage will be done, on the monotonic clock
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[about]}"))
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self) -> None:
        """Print what is new."""
        if self._follower is not None:
            self._follower.look()
        for line in self._events.lines():
            text = describe(line)
            if text:
                self._console.print(text, soft_wrap=True, markup=False)
            if line["event"] == "progress" and line["stage"] != "train":  # of training, its own file tells sooner
                self._news[line["stage"]] = line
            elif line["event"] in {"finished", "failed"}:
                self._forget(line["stage"])
        self._look_at_steps()
        if self._console.is_terminal:
            for stage, progress in self._news.items():
                self._draw(stage, progress)
            self._news.clear()
            self._count_down()
        elif self._news and time.monotonic() - self._shown > EVERY_S:
            for stage, progress in self._news.items():
                self._console.print(progress_line(stage, progress), soft_wrap=True, markup=False)
            self._news.clear()
            self._shown = time.monotonic()

    def _look_at_steps(self) -> None:
        lines = self._metrics.lines()
        if not lines:
            return
        last = lines[-1]
        self._pace.at(time.monotonic(), last["step"])
        about = {key: last[key] for key in ("loss", "tokens", "tokens_per_s")}
        left = self._pace.left_s(self._steps)
        self._news["train"] = {"done": last["step"], "total": self._steps, "unit": "steps", "left_s": left, **about}

    def _draw(self, stage: str, progress: dict[str, Any]) -> None:
        if progress["done"] >= progress["total"] and stage in {"train", "evaluate"}:
            self._forget(stage)
            return
        name = f"{stage}/{progress['phase']}" if "phase" in progress else stage
        loss = f", loss {progress['loss']:.3f}" if progress.get("loss") is not None else ""
        shown = {"description": name + loss, "completed": progress["done"], "total": progress["total"], "speed": ", ".join(rates(progress))}
        if stage in self._tasks:
            self._bar.update(self._tasks[stage], **shown)
        else:
            self._tasks[stage] = self._bar.add_task(about="", **shown)
        if progress.get("left_s") is not None:
            self._left[stage] = time.monotonic() + progress["left_s"]

    def _count_down(self) -> None:
        for stage, task in self._tasks.items():
            speed = self._bar.tasks[self._bar.task_ids.index(task)].fields.get("speed", "")
            left = f"{clock(max(0.0, self._left[stage] - time.monotonic()))} left" if stage in self._left else ""
            self._bar.update(task, about=", ".join(part for part in (speed, left) if part))

    def _forget(self, stage: str) -> None:
        self._news.pop(stage, None)
        self._left.pop(stage, None)
        if stage in self._tasks:
            self._bar.remove_task(self._tasks.pop(stage))


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
    if what == "checkpoint":
        stood = event["stall_s"] + event["waited_s"]
        return f"{stage}: checkpoint of step {event['step']:,}, {event['bytes'] / 1e6:,.1f} MB; training stood still for {stood:.1f} s"
    if what == "incident":
        return f"{stage}: {event['kind']}: {event['message']}"
    if what == "evaluation":
        if event["status"] == "failed":
            return f"{stage}: {event['checkpoint']}, {event['suite']}: no result: {event.get('reason')}"
        bits = event.get("bits_per_byte")
        return f"{stage}: {event['checkpoint']}, {event['suite']}" + (f": {bits:.3f} bits per byte" if bits is not None else ": scored")
    return None
