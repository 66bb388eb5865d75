"""Deduplication composed: one pass over the text signs for all levels, each level then looks at what those before it left standing."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import model_validator

from headrace import schema, storage
from headrace.artifact import StageOutput
from headrace.config import Config
from headrace.dedup import document, exact, index, judge, sentence, signatures, survivors, token_cuts, token_level
from headrace.dedup.alarms import SOURCES, Alarms, by_source
from headrace.dedup.cuts import LEVELS
from headrace.dedup.document import DocumentDedup, find_documents
from headrace.dedup.index import IndexConfig
from headrace.dedup.index_write import write_index
from headrace.dedup.phases import Phases
from headrace.dedup.preference import check_quality, priority_ranks
from headrace.dedup.sentence import SentenceDedup, find_sentences
from headrace.dedup.token_level import TokenDedup, find_tokens
from headrace.stage import Engine

VERSION = 2  # of what all levels share; each has its own besides
NO_DOCUMENTS = (1 << 31) - 1  # stands for the rank of a file without documents: no document has it
LEVEL_OF = {
    survivors.EXACT_DUPLICATE: "document",
    survivors.NEAR_DUPLICATE: "document",
    sentence.SHORT: "sentence",
    token_cuts.SHORT: "token",
}  # by reason


class Dedup(Config):
    """Which levels of deduplication run, and who is preferred."""

    document: DocumentDedup | None = DocumentDedup()  # null turns it off
    sentence: SentenceDedup | None = None
    token: TokenDedup | None = None
    quality: str | None = None  # measure of the filters, the higher the better, that comes next to a source's priority
    index: IndexConfig = IndexConfig()
    alarms: Alarms = Alarms()

    @model_validator(mode="after")
    def index_has_documents(self) -> Dedup:
        if self.document is None and (self.index.read or self.index.write):
            raise ValueError("an index is of whole documents and needs dedup.document; it is null")
        return self

    @property
    def levels(self) -> tuple[str, ...]:
        """Those that are on, in the order in which they run."""
        return tuple(level for level in LEVELS if getattr(self, level))


def stage_config(config: Dedup, priorities: Mapping[str, int], measures: Collection[str]) -> dict[str, Any]:
    """What the stage's output depends on, besides the artifacts that it reads: neither where an index lies nor what alarms a person.

    Args:
        priorities: of the sources, by name.
        measures: what the filters of any source leave in their verdicts.

    Raises:
        ConfigError: an index that is read is absent or does not fit, or nothing measures the quality.
    """
    check_quality(config.quality, measures)
    versions = {"document": document.VERSION, "sentence": sentence.VERSION, "token": token_level.VERSION}
    plain = config.model_dump(mode="json", exclude={"alarms": True, "index": True, "document": {"preset"}})
    if config.document and config.index.read:
        index.opened(config.index.read, _comparable(config, None), config.document.verify)  # the tokenizer is not known yet
    return {
        **plain,
        "versions": {level: versions[level] for level in config.levels},
        "index": {"read": index.fingerprints(config.index.read), "write": config.index.write and index.VERSION},
        "normalisation": exact.NORMALISATION,
        "priority": dict(priorities),
        "unicode": unicodedata.unidata_version,
    }


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
        storage.write_json(folder / SOURCES, [])
        return StageOutput([], [storage.file_entry(folder, folder / SOURCES)])
    comparable = _comparable(config, tokenizer) if config.document else {}
    old = index.opened(config.index.read, comparable, config.document.verify) if config.document else index.Index()
    phases = Phases(_planned(units, config, folder / "work", tokenizer, old), folder, engine, old)
    records = [phases.run(signatures.sign, "signatures")]
    copies: list[Path] = []
    if config.document:
        found, copies = find_documents(phases)
        records.append(found)
    if config.sentence:
        records.append(find_sentences(phases))
    if config.token:
        records.append(find_tokens(phases))
    judged = phases.run(judge.judge, "verdicts", here=phases.small(phases.files("exact")))
    counters = [{name: count for each in of_unit for name, count in each["counters"].items()} for of_unit in zip(*records, judged)]
    ids = [[entry for entry in signed["files"] if entry["path"].startswith("ids/")] for signed in records[0]]  # for `tokens` to use again
    counted = [{**last, "files": [*kept, *last["files"]], "counters": found} for last, kept, found in zip(judged, ids, counters)]
    shuffled = {f"shuffled_bytes_{name.replace('-', '_')}": size for name, size in phases.shuffled.items()}
    files = []
    if config.document and config.index.write:
        some = [unit for unit in phases.units if unit["rank"] != NO_DOCUMENTS]
        files += write_index(phases, some, _kinds(config), comparable, copies, config.document.verify)
    largest = storage.read_json(phases.work / "groups" / "largest.json") if config.document else None
    storage.write_json(folder / SOURCES, by_source(counted, LEVEL_OF, largest))
    return StageOutput(counted, [*files, storage.file_entry(folder, folder / SOURCES)], counters=shuffled)


def _comparable(config: Dedup, tokenizer: Path | None) -> dict[str, Any]:
    """What two runs must have in common for one to read the other's index."""
    assert config.document is not None
    levels: dict[str, dict[str, Any]] = {}
    if config.sentence:
        levels["sentence"] = {"unit": config.sentence.unit, "span": config.sentence.span, "version": sentence.VERSION}
    if config.token and tokenizer:
        digest = storage.file_entry(tokenizer.parent, tokenizer)["sha256"]
        same = {"min_tokens": config.token.min_tokens, "passes": config.token.passes}
        levels["token"] = {**same, "version": token_level.VERSION, "tokenizer": digest}
    return index.signature_settings(config.document.model_dump(mode="json"), **levels)


def _kinds(config: Dedup) -> list[str]:
    """What an index keeps of each documents file."""
    assert config.document is not None
    kinds = ["exact", "bands", *(["shingles"] if config.document.verify else []), *(["spans"] if config.sentence else [])]
    for suffix in ("", "-2")[: config.token.passes if config.token else 0]:
        kinds += [f"fingerprints{suffix}", f"tokens{suffix}", f"tokens{suffix}.bin"]
    return kinds


def _planned(units: Sequence[dict[str, Any]], config: Dedup, work: Path, tokenizer: Path | None, old: index.Index) -> list[dict[str, Any]]:
    """The units in the order of their documents, with what every phase needs; written to units.json for look-ups across files.

    Those of an index are listed there behind them: what of their documents is known without their text.
    """
    ranks_of = priority_ranks(unit["priority"] for unit in units)
    settings = {level: getattr(config, level).model_dump() if level in config.levels else None for level in LEVELS}
    if settings["token"]:
        settings["token"]["tokenizer"] = str(tokenizer)
    shared = {"work": str(work), "quality": config.quality, "indexed": config.index.write, **settings}
    planned = [
        {**unit, **shared, "rank": _rank(Path(unit["documents"])), "priority_rank": ranks_of[unit["priority"]]}
        for unit in sorted(units, key=lambda unit: str(unit["id"]))
    ]
    listed = [
        {
            **{key: unit[key] for key in ("id", "rank", "documents")},
            "names": str(work / "names" / f"{unit['id']}.arrow"),
            "shingles": str(work / "shingles" / f"{unit['id']}.sets"),
        }
        for unit in planned
        if unit["rank"] != NO_DOCUMENTS
    ]
    ranks = [unit["rank"] for unit in listed]
    if len(set(ranks)) < len(ranks):
        repeated = next(rank for rank in ranks if ranks.count(rank) > 1)
        same = [unit["documents"] for unit in listed if unit["rank"] == repeated]
        raise ValueError(
            f"{same[0]} and {same[1]} hold documents of one number range ({schema.first_doc(repeated)} on); pass each file once."
        )
    listed += [
        {
            **{key: unit[key] for key in ("id", "rank", "files")},
            "names": unit["files"]["names"],
            "shingles": unit["files"].get("shingles"),
        }
        for unit in old.units
    ]
    storage.write_json(work / "units.json", storage.portable(listed))
    return planned


def _rank(documents: Path) -> int:
    with pq.ParquetFile(storage.local(documents), page_checksum_verification=True) as file:
        for batch in file.iter_batches(1, columns=["doc"]):
            return schema.file_rank(batch["doc"][0].as_py())
    return NO_DOCUMENTS
