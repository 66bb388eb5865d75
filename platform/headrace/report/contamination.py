"""What of the evaluation sets stood in the text: how much of each, in how many documents, and how the model scores either kind of item."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace import storage
from headrace.artifact import read_table
from headrace.report.numbers import count, share, with_error
from headrace.report.sections import section, table

SHOWN = 10  # items
TEXT_SHOWN = 120  # characters of one
PARTS = ("all", "clean", "contaminated")


def contamination(run: Path, stages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The part of the report on evaluation sets; None for a run that looks for none.

    Returns:
        {"rules": settings of the stage, "benchmarks": [{"name", "items", "contaminated", "hit_rate", "suppressed", "not_searched"}],
        "items": the ones most documents hold, "documents_removed", "documents_cut", "scores": those of the newest checkpoint or None}.
        A suppressed item has n-grams in the text, but each in too many documents to say anything.
    """
    stage = next((stage for stage in stages if stage["stage"] == "decontaminate"), None)
    if stage is None:
        return None
    folder = run / "data" / "decontaminate" / str(stage["fingerprint"])
    items = read_table(folder / "items" / "all.parquet")
    silent = pc.and_(pc.greater(items["suppressed_n_grams"], 0), pc.equal(items["suppressed_n_grams"], items["hit_n_grams"]))
    counted = pa.table(
        {
            "name": items["benchmark"],
            "items": pa.array(np.ones(len(items), np.int64)),
            "contaminated": items["contaminated"].cast(pa.int64()),
            "suppressed": silent.cast(pa.int64()),
            "not_searched": pc.equal(items["n_grams"], 0).cast(pa.int64()),
        }
    )
    numbers = ("items", "contaminated", "suppressed", "not_searched")
    sums = counted.group_by("name", use_threads=False).aggregate([(name, "sum") for name in numbers])
    benchmarks = [
        {"name": row["name"], **{name: row[f"{name}_sum"] for name in numbers}, "hit_rate": row["contaminated_sum"] / row["items_sum"]}
        for row in sums.to_pylist()
    ]
    most = [("contaminated", "descending"), ("documents", "descending"), ("hit_n_grams", "descending")]
    first = items.take(pc.sort_indices(items, sort_keys=[*most, ("benchmark", "ascending"), ("row", "ascending")]).slice(0, SHOWN))
    listed = [
        {**{key: row[key] for key in ("benchmark", "item", "n_grams", "hit_n_grams", "documents")}, "text": row["text"][:TEXT_SHOWN]}
        for row in first.to_pylist()
        if row["contaminated"]
    ]
    return {
        "rules": storage.read_json(folder / "manifest.json")["config"],
        "benchmarks": benchmarks,
        "items": listed,
        "documents_removed": stage["rejected"].get("contaminated", 0),
        "documents_cut": stage["counters"].get("documents_cut", 0),
        "scores": _newest_scores(run, str(stage["fingerprint"])),
    }


def _newest_scores(run: Path, fingerprint: str) -> dict[str, Any] | None:
    """{"checkpoint", "status", "definition", "benchmarks": {set: {"all" | "clean" | "contaminated": {metric: score}}}}"""
    for folder in reversed(storage.holding(run / "eval", "benchmarks.json")):
        if not folder.name.startswith("step-"):
            continue
        result = storage.read_json(folder / "benchmarks.json")
        if result.get("status") == "failed":
            return {"checkpoint": folder.name, "status": "failed", "definition": result["reason"], "benchmarks": {}}
        if result["decontaminate_fingerprint"] != fingerprint:
            continue
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for row in result["metrics"]:
            score = {key: row[key] for key in ("value", "stderr", "ci95", "n_documents")}
            found.setdefault(row["source"], {}).setdefault(row["items"], {})[row["metric"]] = score
        return {"checkpoint": folder.name, "status": "scored", "definition": result["definition"], "benchmarks": found}
    return None


def section_of(found: dict[str, Any] | None) -> str:
    """The section of the page; nothing for a run that looks for no evaluation set."""
    if found is None:
        return ""
    rules = found["rules"]
    rows = [
        [row["name"], count(row["items"]), count(row["contaminated"]), share(row["hit_rate"])]
        + [count(row[key]) for key in ("suppressed", "not_searched")]
        for row in sorted(found["benchmarks"], key=lambda row: (-row["hit_rate"], row["name"]))
    ]
    head = ["evaluation set", "items", "contaminated", "hit rate", "suppressed", "not searched"]
    judged = {"ngram": f"an n-gram of {rules['n']} words", "item": f"{share(rules['share'])} of an item's {rules['n']}-grams"}
    what = judged.get(rules["judge"], f"a paragraph with {share(rules['share'])} of its {rules['n']}-grams from items")
    lead = (
        f"Contaminated by {what}: {count(found['documents_removed'])} documents removed, {count(found['documents_cut'])} cut. The hit rate "
        "is the share of items that the text held before. Suppressed are items all of whose n-grams in the text are in too many documents; "
        "not searched are items that are too short."
    )
    parts = [table(head, rows)]
    if found["items"]:
        parts.append("<h3>Items that most documents hold</h3>")
        listed = [
            [f"{row['benchmark']}:{row['item']}", row["text"], count(row["documents"]), f"{row['hit_n_grams']:,} of {row['n_grams']:,}"]
            for row in found["items"]
        ]
        parts.append(table(["item", "text", "documents", "n-grams found"], listed, numbers_from=2))
    if scores := found["scores"]:
        parts.append(f"<h3>Bits per byte of the sets' text, {html.escape(scores['checkpoint'])}</h3>")
        if scores["benchmarks"]:
            parts.append(_scores(scores["benchmarks"]))
        parts.append(f'<p class="small">{html.escape(scores["definition"])}</p>')
    return section("Evaluation sets in the text", lead, *parts)


def _scores(benchmarks: dict[str, dict[str, dict[str, Any]]]) -> str:
    head = ["evaluation set"]
    for part in PARTS:
        head += [f"{part} items", "scored"]
    rows = []
    for name, parts in sorted(benchmarks.items()):
        row = [name]
        for part in PARTS:
            score = parts.get(part, {}).get("bits_per_byte", {})
            row += [with_error(score.get("value"), score.get("stderr")), count(score.get("n_documents"))]
        rows.append(row)
    return table(head, rows)
