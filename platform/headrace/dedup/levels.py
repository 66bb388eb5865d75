"""Deduplication composed: one pass over the text signs for all levels, each level then looks at what those before it left standing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from headrace import schema, storage
from headrace.artifact import StageOutput
from headrace.config import Config
from headrace.dedup import judge, signatures
from headrace.dedup.cuts import LEVELS
from headrace.dedup.document import DocumentDedup, find_documents
from headrace.dedup.phases import Phases
from headrace.dedup.preference import priority_ranks
from headrace.stage import Engine

VERSION = 1
NO_DOCUMENTS = (1 << 31) - 1  # stands for the rank of a file without documents: no document has it


class Dedup(Config):
    """Which levels of deduplication run, and who is preferred."""

    document: DocumentDedup | None = DocumentDedup()  # null turns it off
    sentence: None = None
    token: None = None
    quality: str | None = None  # measure of the filters, the higher the better, that comes next to a source's priority

    @property
    def levels(self) -> tuple[str, ...]:
        """Those that are on, in the order in which they run."""
        return tuple(level for level in LEVELS if getattr(self, level))


def deduplicate(units: Sequence[dict[str, Any]], config: Dedup, folder: Path, engine: Engine, tokenizer: Path | None = None) -> StageOutput:
    """Write verdicts/ and removed/ for every documents file.

    Every phase leaves files below folder/work, which the caller deletes after the commit, and continues with what is missing there.

    Args:
        units: {"id", "documents": path, "verdicts": [paths of earlier verdicts], "source", "priority"}; a lower priority number
            is preferred.
        folder: the stage's own folder.
        tokenizer: a tokenizer.json, for the level of tokens.
    """
    if not units:
        return StageOutput([])
    phases = Phases(_planned(units, config, folder / "work", tokenizer), folder, engine)
    records = [phases.run(signatures.sign, "signatures")]
    if config.document:
        records.append(find_documents(phases))
    judged = phases.run(judge.judge, "verdicts")
    counters = [{name: count for each in of_unit for name, count in each["counters"].items()} for of_unit in zip(*records, judged)]
    shuffled = {f"shuffled_bytes_{name.replace('-', '_')}": size for name, size in phases.shuffled.items()}
    return StageOutput([{**last, "counters": counted} for last, counted in zip(judged, counters)], counters=shuffled)


def _planned(units: Sequence[dict[str, Any]], config: Dedup, work: Path, tokenizer: Path | None) -> list[dict[str, Any]]:
    """The units in the order of their documents, with what every phase needs; written to units.json for look-ups across files."""
    ranks_of = priority_ranks(unit["priority"] for unit in units)
    settings = {level: getattr(config, level).model_dump() if level in config.levels else None for level in LEVELS}
    if settings["token"]:
        settings["token"]["tokenizer"] = str(tokenizer)
    shared = {"work": str(work), "quality": config.quality, **settings}
    planned = [
        {**unit, **shared, "rank": _rank(Path(unit["documents"])), "priority_rank": ranks_of[unit["priority"]]}
        for unit in sorted(units, key=lambda unit: str(unit["id"]))
    ]
    listed = [{key: unit[key] for key in ("id", "rank", "documents")} for unit in planned if unit["rank"] != NO_DOCUMENTS]
    ranks = [unit["rank"] for unit in listed]
    if len(set(ranks)) < len(ranks):
        repeated = next(rank for rank in ranks if ranks.count(rank) > 1)
        same = [unit["documents"] for unit in listed if unit["rank"] == repeated]
        raise ValueError(
            f"{same[0]} and {same[1]} hold documents of one number range ({schema.first_doc(repeated)} on); pass each file once."
        )
    storage.write_json(work / "units.json", listed)
    return planned


def _rank(documents: Path) -> int:
    with pq.ParquetFile(documents, page_checksum_verification=True) as file:
        for batch in file.iter_batches(1, columns=["doc"]):
            return schema.file_rank(batch["doc"][0].as_py())
    return NO_DOCUMENTS
