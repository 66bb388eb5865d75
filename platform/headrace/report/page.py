"""report.html: one page that needs nothing but itself. Every text from the run is escaped."""

from __future__ import annotations

import datetime
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace import storage
from headrace.report import contamination, duplicates, scoreboard, sections
from headrace.report.gather import gather
from headrace.report.numbers import count, decimals, duration, short
from headrace.report.summary import documents, summary_table

STATES = {
    "empty": "Empty.",
    "data": "Data.",
    "training": "Training.",
    "scoring": "Scoring.",
    "complete": "Complete.",
    "failed": "Failed.",
}


def write_report(run: Path) -> dict[str, Any]:
    """Write RUN/report.json and RUN/report.html from what the run's folder holds; the content of the former.

    Works at any point of a run's life: parts that are not there yet say so. Nothing is written anew when nothing changed but the page
    itself: equal folders give equal files.
    """
    report = gather(run)
    report["summary"] = [list(row) for row in summary_table(report)]
    storage.write_json(run / "report.json", report)
    storage.write_bytes(run / "report.html", render(report).encode())
    return report


def render(report: dict[str, Any]) -> str:
    """The page for a report as `gather` gives it."""
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    body = "\n".join(
        [
            _header(report),
            _alarms(report["alarms"]),
            sections.corpus(report),
            duplicates.section_of(report["duplicates"]),
            sections.training(report),
            scoreboard.scores(report),
            contamination.section_of(report["contamination"]),
            sections.time(report["time"]),
            sections.appendix(report),
            _footer(report),
        ]
    )
    name = html.escape(report["run"])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name} · Headrace report</title>\n<style>\n{style}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _header(report: dict[str, Any]) -> str:
    verdict = report["verdict"]
    facts = html.escape(" · ".join(_facts(report)))
    return (
        f'<header><p class="brand">Headrace run report</p><h1>{html.escape(report["run"])}</h1><p class="facts">{facts}</p>'
        f'<p class="verdict {html.escape(verdict["state"])}"><b>{STATES[verdict["state"]]}</b>{html.escape(verdict["text"])}</p>'
        f"{_now(report)}{_tiles(report)}</header>"
    )


def _now(report: dict[str, Any]) -> str:
    """What was at work when the run was last heard of, with its rate and the time it still takes."""
    return "".join(
        f'<p class="now">{html.escape(line["text"])}<small> at {datetime.datetime.fromtimestamp(line["time"], datetime.UTC):%H:%M:%S} UTC'
        "</small></p>"
        for line in report["now"]
    )


def _facts(report: dict[str, Any]) -> list[str]:
    """Model and layout in a line."""
    model = report["model"]
    if not model:
        return ["no checkpoint yet"]
    config, layout = model["config"], model["layout"] or {}
    facts = [
        f"{config.get('architecture', 'model')}, {short(model['parameters'])} parameters",
        f"{config.get('layers', '–')} layers × {config.get('hidden', '–')}",
        f"vocabulary {count(config.get('vocab_size'))}",
        f"sequences of {count(config.get('sequence_length'))} tokens",
    ]
    if layout:
        cuts = [f"{name} {layout[name]}" for name in ("data", "tensor", "pipeline") if layout.get(name, 1) > 1]
        facts.append(f"{' x '.join(cuts) or 'one worker'}, ZeRO {layout.get('zero', 0)}, {layout.get('precision', 'fp32')}")
    return facts


def _tiles(report: dict[str, Any]) -> str:
    read, kept = documents(report)
    tiles: list[tuple[str, str]] = []
    if read is not None:
        tiles.append((f"documents kept, of {count(read)}", f"{count(kept)}"))
    if report["tokens"]:
        tiles.append(("training tokens in the store", short(report["tokens"]["train"]["tokens"])))
    if report["training"]:
        tiles.append((f"tokens trained on, in {count(report['training']['steps'])} steps", short(report["training"]["tokens"])))
    scored = [entry for entry in report["checkpoints"] if entry["validation_loss"] is not None]
    if scored:
        tiles.append(
            (
                "validation loss, nats per token",
                f"{decimals(scored[0]['validation_loss'], 2)} → {decimals(scored[-1]['validation_loss'], 2)}",
            )
        )
        tiles.append(("bits per byte", decimals(scored[-1]["scores"]["all"]["bits_per_byte"]["value"], 3)))
    if report["time"]["total_seconds"]:
        tiles.append(("time", duration(report["time"]["total_seconds"])))
    return '<div class="tiles">' + "".join(_tile(*tile) for tile in tiles) + "</div>" if tiles else ""


def _tile(label: str, value: str) -> str:
    return f'<div class="tile"><span>{html.escape(label)}</span><b>{html.escape(value)}</b></div>'


def _alarms(alarms: Sequence[dict[str, str]]) -> str:
    if not alarms:
        return ""
    rows = "".join(
        f'<div class="alarm {html.escape(alarm["level"])}"><b>{html.escape(alarm["stage"])}</b>'
        f"<span>{html.escape(alarm['text'])}</span></div>"
        for alarm in alarms
    )
    return f"<section><h2>Look at these</h2>{rows}</section>"


def _footer(report: dict[str, Any]) -> str:
    updated = report["updated"]
    when = ""
    if updated is not None:
        when = f" Last event {datetime.datetime.fromtimestamp(updated, datetime.UTC):%Y-%m-%d %H:%M} UTC."
    return f"<footer>Written by headrace {html.escape(report['headrace_version'])}.{when} The same numbers are in report.json.</footer>"
