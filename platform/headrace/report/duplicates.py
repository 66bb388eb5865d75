"""What deduplication took from each source, and what it brought together to find it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace import storage
from headrace.report.numbers import count, decimals, share, size
from headrace.report.sections import section, table

SHUFFLED = "shuffled_bytes_"


def duplicates(run: Path, stages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The part of the report on repeats; None for a run that removes none.

    Returns:
        {"documents": that reached it, "sources": rows of the artifact's sources.json, "shuffles": [{"name", "bytes",
        "bytes_per_document"}], the largest first}; a shuffle's bytes are those of its integers, as they are in memory.
    """
    stage = next((stage for stage in stages if stage["stage"] == "dedup"), None)
    if stage is None:
        return None
    path = run / "data" / "dedup" / str(stage["fingerprint"]) / "sources.json"
    documents = stage["rows_in"]
    shuffles = [
        {"name": name.removeprefix(SHUFFLED), "bytes": value, "bytes_per_document": value / documents if documents else None}
        for name, value in stage["counters"].items()
        if name.startswith(SHUFFLED)
    ]
    return {
        "documents": documents,
        "sources": storage.read_json(path) if storage.present(path) else [],
        "shuffles": sorted(shuffles, key=lambda row: (-row["bytes"], row["name"])),
    }


def section_of(found: dict[str, Any] | None) -> str:
    """The section of the page; nothing for a run that removes no repeats."""
    if found is None:
        return ""
    reasons = sorted({(level, reason) for row in found["sources"] for level, counts in row["removed"].items() for reason in counts})
    levels = sorted({level for row in found["sources"] for level in row["cut_chars"]})
    head = ["source", "documents", *(reason for _, reason in reasons), "removed", *(f"characters cut ({level})" for level in levels)]
    rows = [
        [row["source"], count(row["rows_in"])]
        + [count(row["removed"].get(level, {}).get(reason, 0)) for level, reason in reasons]
        + [share(row["removed_share"] if row["rows_in"] else None)]
        + [count(row["cut_chars"].get(level, 0)) for level in levels]
        + [count(row["largest_group"])]
        for row in found["sources"]
    ]
    parts = [table([*head, "largest group"], rows)] if rows else []
    if found["shuffles"]:
        shuffled = [[row["name"], size(row["bytes"]), decimals(row["bytes_per_document"], 1)] for row in found["shuffles"]]
        total = sum(row["bytes"] for row in found["shuffles"])
        of_each = total / found["documents"] if found["documents"] else None
        parts += ["<h3>Integers brought together</h3>", table(["shuffle", "size", "bytes a document"], shuffled)]
        parts.append(f'<p class="small">Together {size(total)}, {decimals(of_each, 1)} bytes a document. No text is shuffled.</p>')
    lead = "Documents that repeat others, by source. A group is of documents that duplicates link, directly or through others."
    return section("Repeats", lead, *parts)
