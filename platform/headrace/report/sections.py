"""The sections of the page, each from its part of the report; a part that is not there yet says so."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from headrace.report.charts import Bar, Series, Span, bar_chart, line_chart, timeline
from headrace.report.numbers import count, decimals, duration, finite, moment, share, short, significant, size
from headrace.report.summary import documents, removals

STAGE_NAMES = {
    "ingest": "read",
    "filters": "after filters",
    "dedup": "after deduplication",
    "decontaminate": "after decontamination",
    "split": "split",
    "tokens": "tokenized",
}
REASONS_SHOWN = 25


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1, strong: int | None = None) -> str:
    """A table; columns from `numbers_from` on are aligned as numbers; the row `strong` is set off."""
    cells = "".join(f"<th{_number(place, numbers_from)}>{html.escape(name)}</th>" for place, name in enumerate(head))
    body = "".join(
        ('<tr class="strong">' if number == strong else "<tr>")
        + "".join(f"<td{_number(place, numbers_from)}>{html.escape(cell)}</td>" for place, cell in enumerate(row))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def _number(place: int, numbers_from: int) -> str:
    return ' class="n"' if place >= numbers_from else ""


def section(title: str, lead: str, *parts: str) -> str:
    intro = f'<p class="lead">{html.escape(lead)}</p>' if lead else ""
    return f"<section><h2>{html.escape(title)}</h2>{intro}{''.join(parts)}</section>"


def corpus(report: dict[str, Any]) -> str:
    """The funnel by stage, by reason and by source, and what became of it in tokens."""
    read, kept = documents(report)
    if read is None:
        return section("Corpus", "", '<p class="none">No data stage has finished yet.</p>')
    lead = f"Of {count(read)} documents, {count(kept)} were kept. Every removed one has a reason."
    parts = [_funnel(report["funnel"], read)]
    reasons = removals(report)
    if reasons:
        most = reasons[0][2]
        parts.append("<h3>Why documents were removed</h3>")
        parts.append(bar_chart([_reason(row, read) for row in reasons[:REASONS_SHOWN]], most))
        if len(reasons) > REASONS_SHOWN:
            rest = sum(rows for _, _, rows in reasons[REASONS_SHOWN:])
            parts.append(
                f'<p class="small">And {count(rest)} documents for {len(reasons) - REASONS_SHOWN} further reasons; see report.json.</p>'
            )
    if report["sources"]:
        parts += ["<h3>By source</h3>", _by_source(report)]
    return section("Corpus", lead, *parts)


def _reason(row: tuple[str, str, int], read: int) -> Bar:
    stage, reason, rows = row
    return Bar(reason, rows, f"{count(rows)} · {share(rows / read if read else None)}", stage)


def _funnel(stages: Sequence[dict[str, Any]], read: int) -> str:
    rows = []
    for stage in stages:
        if stage["stage"] in {"split", "tokens"} and not stage["rejected"]:
            continue  # nothing is removed there; their numbers stand by source
        lost = stage["rows_in"] - stage["rows_out"]
        removed = f"<small>{count(lost)} removed</small>" if lost else "<small>none removed</small>"
        most = max(read, 1)
        rows.append(
            f'<div class="bar"><span class="name">{html.escape(STAGE_NAMES.get(stage["stage"], stage["stage"]))}{removed}</span>'
            f'<span class="track"><i style="width:{100 * stage["rows_out"] / most:.2f}%"></i>'
            f'<i class="lost" style="width:{100 * lost / most:.2f}%"></i></span>'
            f'<span class="value">{count(stage["rows_out"])} · {share(stage["rows_out"] / most)}</span></div>'
        )
    return f'<div class="bars funnel">{"".join(rows)}</div>'


def _by_source(report: dict[str, Any]) -> str:
    stages = [stage["stage"] for stage in report["funnel"] if stage["stage"] not in {"split", "tokens"}]
    head = ["source", "documents", *[STAGE_NAMES.get(stage, stage) for stage in stages if stage != "ingest"], "kept"]
    head += ["training tokens", "validation tokens", "bytes/token"]
    rows = []
    for source in report["sources"]:
        through = [source["stages"].get(stage) for stage in stages]
        into = through[0]["rows_in"] if through and through[0] else None
        left = next((row["rows_out"] for row in reversed(through) if row), None)
        cells = [count(row["rows_out"]) if row else "–" for stage, row in zip(stages, through) if stage != "ingest"]
        tokens = source["tokens"]
        total = sum(tokens[part]["tokens"] for part in ("train", "validation")) if tokens else 0
        written = sum(tokens[part]["bytes"] for part in ("train", "validation")) if tokens else 0
        rows.append(
            [source["source"], count(into), *cells, share(left / into if into and left is not None else None)]
            + [count(tokens[part]["tokens"]) if tokens else "–" for part in ("train", "validation")]
            + [decimals(written / total if total else None, 2)]
        )
    return table(head, rows)


def training(report: dict[str, Any]) -> str:
    """Loss, learning rate, throughput and gradient norm over the optimizer steps."""
    found = report["training"]
    if not found:
        return section("Training", "", '<p class="none">Not trained yet.</p>')
    curve = found["curve"]
    validation = [
        (float(entry["step"]), entry["validation_loss"]) for entry in report["checkpoints"] if entry["validation_loss"] is not None
    ]

    def points(key: str) -> list[tuple[float, float | None]]:
        return [(float(point["step"]), point[key]) for point in curve]

    band = [(float(point["step"]), point["loss_min"], point["loss_max"]) for point in curve]
    loss = [Series("training loss", points("loss"), band=band)]
    if validation:
        loss.append(Series("validation loss", validation, "dots"))
    last = f"last {decimals(found['last_loss'], 3)}"
    speed = f"median {short(found['tokens_per_s'])}"
    parts = [
        f'<div class="tall">{line_chart("Loss", "optimizer step", "nats per token", loss, last)}</div>',
        '<div class="charts">',
        line_chart("Learning rate", "optimizer step", "", [Series("learning rate", points("lr"))], from_zero=True),
        line_chart("Throughput", "optimizer step", "tokens/s", [Series("tokens/s", points("tokens_per_s"))], speed, from_zero=True),
        line_chart("Gradient norm", "optimizer step", "before clipping", [Series("gradient norm", points("grad_norm"))], from_zero=True),
        "</div>",
    ]
    if found["incidents"]:
        rows = [[moment(finite(line.get("time"))), str(line.get("event")), str(line.get("message"))] for line in found["incidents"]]
        parts.append(f"<details><summary>Incidents</summary>{table(['when', 'what', 'said'], rows, numbers_from=3)}</details>")
    return section("Training", _training_lead(found), *parts)


def _training_lead(found: dict[str, Any]) -> str:
    lead = f"{count(found['steps'])} optimizer steps over {short(found['tokens'])} tokens"
    lead += f" in {duration(found['seconds'])} of stepping." if found["seconds"] else "."
    if found["mfu"] is not None:
        lead += f" Model-flops utilisation {share(found['mfu'])}."
    if found["data_wait_share"] is not None:
        lead += f" {share(found['data_wait_share'])} of it was spent waiting for data."
    if found["skipped"]:
        lead += f" {count(found['skipped'])} steps were out of the ordinary and not taken."
    saved = found["checkpoints"]
    if saved:
        lead += f" It stood still {duration(saved['stall_seconds'])} ({share(saved['share'])}) for {count(saved['written'])} checkpoints."
    if found["resumed_from"]:
        lead += f" Resumed from step {', '.join(count(step) for step in found['resumed_from'])}."
    return lead


def time(clock: dict[str, Any]) -> str:
    """Where the time went."""
    if not clock["rows"]:
        return section("Where the time went", "", '<p class="none">Nothing has been timed yet.</p>')
    total = clock["total_seconds"]
    lead = f"{duration(total)} from the first event to the last, without pauses between runs of the command. " if total else ""
    lead += "Light: a job's start-up, from its submission to its first line of code. Jobs run side by side, so shares may exceed 100 %."
    rows = []
    for row in clock["rows"]:
        startup, seconds = row["startup_seconds"], row["seconds"]
        rows.append(
            [
                f"{_part(row['row'])} ({row['runs']} jobs)" if row["kind"] == "job" and row["runs"] > 1 else _part(row["row"]),
                {"job": "Ray job", "stage": "data stage", "other": "cluster"}[row["kind"]],
                duration(seconds),
                duration(startup),
                duration(seconds - startup if startup is not None and seconds is not None else None),
                share(row["share"]),
                size(row["peak_rss_bytes"]),
            ]
        )
    spans = [
        Span(_part(s["row"]), s["begin"], s["work"], s["end"], f"{s['title']}: {duration(s['end'] - s['begin'])}") for s in clock["spans"]
    ]
    chart = timeline(spans, total) if spans and total else ""
    return section(
        "Where the time went",
        lead,
        chart,
        table(["part", "kind", "time", "start-up", "work", "share", "peak memory of a process"], rows, numbers_from=2),
    )


def _part(row: str) -> str:
    """A part's name for a person; data stages are set in below the job that runs them."""
    return {"cluster": "cluster start", "shutdown": "cluster stop"}.get(row, f"\u2003{row}" if row in STAGE_NAMES else row)


def appendix(report: dict[str, Any]) -> str:
    """Configuration, stages and files, folded."""
    parts = []
    if report["config"] is not None:
        parts.append(f"<details><summary>Configuration</summary><pre>{html.escape(report['config'])}</pre></details>")
    if report["funnel"]:
        rows = [
            [stage["stage"], stage["fingerprint"], count(stage["rows_in"]), count(stage["rows_out"]), _counters(stage["counters"])]
            for stage in report["funnel"]
        ]
        body = table(["stage", "fingerprint", "in", "out", "counters"], rows, numbers_from=2)
        parts.append(f"<details><summary>Data artifacts</summary>{body}</details>")
    versions = (report["model"] or {}).get("versions") or {}
    if versions:
        body = table(["package", "version"], [[str(name), str(version)] for name, version in versions.items()])
        parts.append(f"<details><summary>Versions</summary>{body}</details>")
    if report["files"]:
        rows = [[file["path"], count(file["files"]), size(file["bytes"])] for file in report["files"]]
        parts.append(f"<details><summary>Files</summary>{table(['path', 'files', 'size'], rows)}</details>")
    return section("Details", "", *parts) if parts else ""


def _counters(counters: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {significant(value, 12) if isinstance(value, float) else count(value)}"
        for name, value in counters.items()
        if isinstance(value, int | float)
    )
