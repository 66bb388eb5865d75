"""The section of scores: the model beside the baselines, every checkpoint, and the newest one by source."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from headrace.report.charts import Bar, bar_chart
from headrace.report.numbers import count, decimals, duration, short, size, with_error
from headrace.report.sections import section, table


def scores(report: dict[str, Any]) -> str:
    """Bits per byte against the baselines, every checkpoint's scores, and the newest one's by source."""
    scored = [entry for entry in report["checkpoints"] if entry["scores"].get("all")]
    baselines = report["baselines"]["models"] if report["baselines"] else []
    external = report["external"]
    if not report["checkpoints"] and not baselines and not external:
        return section("Scores", "", '<p class="none">No checkpoint yet.</p>')
    parts = []
    if scored or baselines or external:
        newest = scored[-1] if scored else None
        parts += ["<h3>Bits per byte on held-out text, lower is better</h3>", _against(newest, baselines, external)]
    if not scored:
        parts.append('<p class="none">No checkpoint has been scored yet.</p>')
    if report["checkpoints"]:
        parts += ["<h3>Every checkpoint</h3>", _checkpoint_table(report["checkpoints"])]
    if scored:
        parts += [f"<h3>By source, {html.escape(scored[-1]['checkpoint'])}</h3>", _source_scores(scored[-1], [*baselines, *external])]
    definition = external[0]["definition"] if external else report["baselines"]["definition"] if report["baselines"] else None
    if definition:
        parts.append(f'<p class="small">{html.escape(definition)}</p>')
    lead = (
        "± is the standard error, by a bootstrap over documents. Model and baselines are scored on exactly the same tokens"
        + (", models from outside on the same text." if external else ".")
        if parts
        else ""
    )
    return section("Scores", lead, *parts)


def beside_newest(metrics: Sequence[dict[str, Any]], name: str, report: dict[str, Any]) -> list[list[str]]:
    """Head and rows of a table: a model's bits per byte by source, beside those of the run's newest scored checkpoint."""
    newest = [entry for entry in report["checkpoints"] if entry["scores"].get("all")][-1:]
    head = [
        "source",
        "documents",
        f"{name}, bits per byte",
        "95 % interval",
        *[f"{entry['checkpoint']}, bits per byte" for entry in newest],
    ]
    rows = []
    for row in sorted(
        (row for row in metrics if row["metric"] == "bits_per_byte"), key=lambda row: (row["source"] == "all", row["source"])
    ):
        interval = " to ".join(decimals(end, 3) for end in row["ci95"]) if row["ci95"] else "–"
        beside = [_score(entry["scores"].get(row["source"], {}), "bits_per_byte", 3) for entry in newest]
        rows.append([row["source"], count(row["n_documents"]), with_error(row["value"], row["stderr"]), interval, *beside])
    return [head, *rows]


def _against(entry: dict[str, Any] | None, baselines: Sequence[dict[str, Any]], external: Sequence[dict[str, Any]]) -> str:
    bars = []
    for model in external:
        score = model["scores"].get("all", {}).get("bits_per_byte", {})
        note = f"from outside, {short(model['parameters'])} parameters"
        bars.append(Bar(model["name"], score.get("value"), with_error(score.get("value"), score.get("stderr")), note))
    for model in baselines:
        score = model["scores"].get("all", {}).get("bits_per_byte", {})
        bars.append(
            Bar(
                f"{model['name']} baseline",
                model["bits_per_byte"],
                with_error(model["bits_per_byte"], score.get("stderr")),
                model["smoothing"],
            )
        )
    if entry:
        score = entry["scores"]["all"].get("bits_per_byte", {})
        value = score.get("value")
        bars.append(Bar("this model", value, with_error(value, score.get("stderr")), f"step {count(entry['step'])}", strong=True))
    bars.sort(key=lambda bar: -(bar.value if bar.value is not None else float("inf")))
    return bar_chart(bars)


def _checkpoint_table(checkpoints: Sequence[dict[str, Any]]) -> str:
    head = ["step", "validation loss", "bits per byte", "perplexity/token", "next-token accuracy", "scored tokens", "scored in", "size"]
    rows = []
    for entry in checkpoints:
        pooled = entry["scores"].get("all", {})
        if entry["status"] != "scored":
            rows.append([count(entry["step"]), entry["status"], "–", "–", "–", "–", "–", _kept(entry)])
            continue
        rows.append(
            [
                count(entry["step"]),
                decimals(entry["validation_loss"], 4),
                _score(pooled, "bits_per_byte", 4),
                _score(pooled, "token_perplexity", 1),
                _accuracy(pooled),
                count(entry["scored_tokens"]),
                duration(entry["seconds"]),
                _kept(entry),
            ]
        )
    best = _best(checkpoints)
    return table(head, rows, strong=best)


def _kept(entry: dict[str, Any]) -> str:
    return size(entry["bytes"]) if entry["bytes"] is not None else "not kept"


def _best(checkpoints: Sequence[dict[str, Any]]) -> int | None:
    """Row of the lowest bits per byte."""
    values = [
        (score["value"], row)
        for row, entry in enumerate(checkpoints)
        if (score := entry["scores"].get("all", {}).get("bits_per_byte")) and score["value"] is not None
    ]
    return min(values)[1] if values else None


def _score(scores_of: dict[str, Any], metric: str, places: int) -> str:
    score = scores_of.get(metric, {})
    return with_error(score.get("value"), score.get("stderr"), places)


def _accuracy(scores_of: dict[str, Any]) -> str:
    score = scores_of.get("next_token_accuracy", {})
    value, stderr = score.get("value"), score.get("stderr")
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if stderr is None else f"{100 * value:.2f} ± {100 * stderr:.2f} %"


def _source_scores(entry: dict[str, Any], baselines: Sequence[dict[str, Any]]) -> str:
    head = [
        "source",
        "documents",
        "bits per byte",
        "perplexity/token",
        "next-token accuracy",
        *[f"{model['name']}, bits per byte" for model in baselines],
    ]
    rows = []
    for source, found in sorted(entry["scores"].items(), key=lambda item: (item[0] == "all", item[0])):
        rows.append(
            [
                source,
                count(found.get("bits_per_byte", {}).get("n_documents")),
                _score(found, "bits_per_byte", 3),
                _score(found, "token_perplexity", 1),
                _accuracy(found),
                *[decimals(model["scores"].get(source, {}).get("bits_per_byte", {}).get("value"), 3) for model in baselines],
            ]
        )
    return table(head, rows, strong=len(rows) - 1)
