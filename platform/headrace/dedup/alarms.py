"""What deduplication took from each source, and the bounds past which a run stops and asks.

The table is a file of the stage's artifact, sources.json; a bound that it passes fails the run once the artifact is committed. So what
was removed can be looked at (`headrace inspect`), and the same command with a wider bound goes on from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from headrace import storage
from headrace.artifact import Artifact, QualityGateError
from headrace.config import Config

SOURCES = "sources.json"


class Alarms(Config):
    """Bounds for every source; null = none. What is much depends on the source: a dump of forums, a code mirror, a book."""

    largest_group: PositiveInt | None = None  # documents that duplicates link together, directly or through others
    removed_share: Annotated[float, Field(gt=0, le=1)] | None = None  # of the documents that reach deduplication


def by_source(records: Sequence[Mapping[str, Any]], levels: Mapping[str, str], largest: Mapping[str, int] | None) -> list[dict[str, Any]]:
    """A row a source.

    Args:
        records: of the verdicts' units, each with its source, what was rejected, and counters of characters cut by level.
        levels: the level that each reason is of.
        largest: documents in the largest group that has one of a source, by source; null without a document level.

    Returns:
        {"source", "rows_in", "rows_out", "removed": {level: {reason: documents}}, "removed_share", "cut_chars": {level: code points},
        "largest_group"}, by name. `largest_group` is 1 where nothing repeats, null where it is not looked at.
    """
    rows = []
    for source in sorted({record["source"] for record in records}):
        own = [record for record in records if record["source"] == source]
        rejected: Counter[str] = Counter()
        cut: Counter[str] = Counter()
        for record in own:
            rejected.update(record["rejected"])
            cut.update({name: chars for name, chars in record["counters"].items() if name.endswith("_cut_chars")})
        removed: dict[str, dict[str, int]] = {}
        for reason, documents in sorted(rejected.items()):
            removed.setdefault(levels[reason], {})[reason] = documents
        rows_in = sum(record["rows_in"] for record in own)
        rows.append(
            {
                "source": source,
                "rows_in": rows_in,
                "rows_out": rows_in - rejected.total(),
                "removed": removed,
                "removed_share": rejected.total() / rows_in if rows_in else 0.0,
                "cut_chars": {name.removesuffix("_cut_chars"): chars for name, chars in sorted(cut.items())},
                "largest_group": None if largest is None else largest.get(source, min(rows_in, 1)),
            }
        )
    return rows


def check(deduplicated: Artifact, alarms: Alarms) -> None:
    """Hold the sources of a committed artifact against the bounds.

    Raises:
        QualityGateError: every source and bound that was passed, a line each.
    """
    passed = []
    for row in storage.read_json(deduplicated.folder / SOURCES):
        group, share = row["largest_group"], row["removed_share"]
        if alarms.largest_group is not None and group is not None and group > alarms.largest_group:
            passed.append(
                f"{row['source']}: a group of {group:,} documents that repeat one another; dedup.alarms.largest_group is "
                f"{alarms.largest_group:,}"
            )
        if alarms.removed_share is not None and share > alarms.removed_share:
            passed.append(
                f"{row['source']}: deduplication removed {share:.1%} of {row['rows_in']:,} documents; dedup.alarms.removed_share is "
                f"{alarms.removed_share}"
            )
    if passed:
        raise QualityGateError(
            "\n".join(passed) + f"\n{Path(*deduplicated.folder.parts[-4:])} holds what went and why (headrace inspect RUN --stage dedup): "
            "tighten the rules or the source, or widen the bound and run the same command again."
        )
