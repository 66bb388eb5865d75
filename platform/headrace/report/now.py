"""What a run was at when it was last heard of."""

from __future__ import annotations

from typing import Any

from headrace.observe.pace import progress_line


def now(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last word of each stage that was at work: [{"stage", "time", "text", "done", "total", "left_s"}], in the order of first words.

    Only of the last driver's time; a stage that is over is left out.
    """
    at_work: dict[str, dict[str, Any]] = {}
    for event in events:
        stage, what = event.get("stage"), event.get("event")
        if stage in {"cluster", "shutdown"}:
            at_work.clear()
        elif what == "progress" and event["done"] < event["total"]:
            at_work[str(stage)] = event
        elif what in {"progress", "finished", "job finished", "failed"}:
            if what == "progress" or stage != "evaluate":  # whose jobs are many, and say of the rest nothing
                at_work.pop(str(stage), None)
            if stage == "data":  # the job of all data stages
                at_work = {name: line for name, line in at_work.items() if name in {"train", "evaluate"}}
    return [
        {"stage": stage, "text": progress_line(stage, event), **{key: event.get(key) for key in ("time", "done", "total", "left_s")}}
        for stage, event in at_work.items()
    ]
