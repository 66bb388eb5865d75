"""The data side of a run, composed: raw files -> documents -> verdicts -> tokens. The page that a newcomer reads first.

Every stage is named by a fingerprint of its own configuration and of what it reads, so the names of a whole run are known before
anything runs (`fingerprints`), and a stage that is there under its name is not made again (`artifact.build`).
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace import artifact, split, stage, storage
from headrace.artifact import Artifact, StageOutput
from headrace.config import ConfigError
from headrace.decontaminate import passes
from headrace.decontaminate.presets import Decontaminate
from headrace.dedup import alarms, levels
from headrace.events import event_log
from headrace.filters import FilterConfig, chain_measures, default_chain, verdicts
from headrace.ingest import budget, documents, listing
from headrace.ingest.source import Source
from headrace.run import RunConfig, as_json
from headrace.stage import Engine
from headrace.tokens import encode, train_tokenizer
from headrace.verdicts import unit_inputs

UNICODE = unicodedata.unidata_version  # which letters there are, and their small forms, is Python's to say and changes with it


@dataclass(frozen=True)
class StagePlan:
    """One stage of a run before it runs: what its output depends on, hence what it is called."""

    stage: str
    version: int
    config: Any
    inputs: Any

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.stage, self.version, self.config, self.inputs)


def stage_plans(config: RunConfig) -> dict[str, StagePlan]:
    """Every data stage of a run in order, by name. Reads the input files (for their digests) and nothing of the run's folder.

    Raises:
        ConfigError: a source's pattern matches nothing.
    """
    found: dict[str, StagePlan] = {}

    def plan(name: str, version: int, settings: Any, inputs: Any) -> None:
        found[name] = StagePlan(name, version, settings, inputs)

    settings = {"unit_bytes": config.unit_bytes, "sources": {source.name: _reading(source) for source in config.sources}}
    plan("ingest", documents.VERSION, settings, listing.fingerprint_inputs(config.sources))
    chains = {source.name: _chain(source) for source in config.sources}
    plan("filters", verdicts.VERSION, {"chains": chains, "unicode": UNICODE}, _names(found, "ingest"))
    if config.dedup.levels:
        if config.dedup.token:
            plan("tokenizer", train_tokenizer.VERSION, _tokenizer(config), _names(found, *found))
        priorities = {source.name: source.priority for source in config.sources}
        measures = {name for source in config.sources for name in chain_measures(_filters(source))}
        plan("dedup", levels.VERSION, levels.stage_config(config.dedup, priorities, measures), _names(found, *found))
    if config.decontaminate:
        rules, sets = _evaluation_sets(config.decontaminate)
        plan("decontaminate", passes.VERSION, rules, {**_names(found, *found), "benchmarks": sets})
    plan("split", split.VERSION, {**as_json(config.split), "seed": config.seed}, _names(found, *found))
    if "tokenizer" not in found:
        plan("tokenizer", train_tokenizer.VERSION, _tokenizer(config), _names(found, *found))
    plan("tokens", encode.VERSION, {"sequence_length": config.tokens.sequence_length}, _names(found, *found))
    return found


def _tokenizer(config: RunConfig) -> dict[str, Any]:
    """What of the configuration decides on the tokenizer."""
    settings = as_json(config.tokens)
    if config.tokens.tokenizer == "bpe":
        return {name: settings[name] for name in ("tokenizer", "vocab_size", "sample_bytes")} | {"seed": config.seed}
    return {"given": _digest(Path(config.tokens.tokenizer), "tokens.tokenizer", "'bpe' or the path of a tokenizer.json")}


def _evaluation_sets(config: Decontaminate) -> tuple[dict[str, Any], dict[str, str]]:
    """What of the configuration decides on the verdicts, and the digest of each evaluation set."""
    fields = {benchmark.name: as_json(benchmark)["fields"] for benchmark in config.benchmarks}
    sets = {}
    for benchmark in config.benchmarks:
        sets[benchmark.name] = _digest(Path(benchmark.path), f"decontaminate.benchmarks.{benchmark.name}.path", "that of JSON Lines")
    return {**config.rules(), "fields": fields, "unicode": UNICODE}, sets


def _digest(path: Path, field: str, wanted: str) -> str:
    try:
        return str(storage.file_entry(path.parent, path)["sha256"])
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError(f"{field} = {str(path)!r}: {why}; give {wanted}.") from None


def _names(found: Mapping[str, StagePlan], *stages: str) -> dict[str, str]:
    return {name: found[name].fingerprint for name in stages}


def _reading(source: Source) -> dict[str, Any]:
    """What of a source's configuration changes the documents that are read from it."""
    return {"format": source.format, "text_field": source.text_field}


def _filters(source: Source) -> Sequence[FilterConfig]:
    return default_chain(source.kind) if source.filters is None else source.filters


def _chain(source: Source) -> list[dict[str, Any]]:
    return [as_json(rule) for rule in _filters(source)]


def refer(config: RunConfig) -> dict[str, StagePlan]:
    """The run's stages, and note in RUN/data/current.json which artifacts are the configuration's: there may be others beside them."""
    plans = stage_plans(config)
    names = {name: plan.fingerprint for name, plan in plans.items()}
    storage.note(config.folder / "data" / "current.json", storage.as_json(names))
    return plans


def curate(config: RunConfig, engine: Engine) -> Artifact:
    """Raw files to packed tokens, each stage made or found; the `tokens` artifact.

    Raises:
        ConfigError: nothing to read.
        StageError: too much of the input is damaged, or nothing is left to train on.
    """
    run = config.folder
    event = event_log(run)
    plans = refer(config)
    done: dict[str, Artifact] = {}

    def build(name: str, make: Callable[[Path], StageOutput]) -> Artifact:
        plan = plans[name]
        done[name] = artifact.build(run, name, version=plan.version, config=plan.config, inputs=plan.inputs, make=make, event=event)
        return done[name]

    def ingest(folder: Path) -> StageOutput:
        units = listing.plan_units(config.sources, config.unit_bytes, plans["ingest"].inputs)
        records = stage.run_units(documents.ingest_unit, units, folder, phase="read", engine=engine)
        budget.check_budget(records, config.errors, folder)
        return StageOutput(records)

    read = build("ingest", ingest)

    def filter_documents(folder: Path) -> StageOutput:
        units = [{**unit, "chain": plans["filters"].config["chains"][unit["source"]]} for unit in unit_inputs(read, [])]
        return StageOutput(stage.run_units(verdicts.filter_unit, units, folder, phase="verdicts", engine=engine))

    judged = [build("filters", filter_documents)]

    def tokenizer(parts: Artifact | None) -> Artifact:
        make = train_tokenizer.make_tokenizer
        return build("tokenizer", lambda folder: make(read, judged, parts, config.tokens, config.seed, folder, engine))

    if config.dedup.token:  # its unit is the token, so the tokenizer comes first and sees what is not deduplicated yet
        tokenizer(None)

    if config.dedup.levels:
        priorities = plans["dedup"].config["priority"]
        vocabulary = done["tokenizer"].folder / train_tokenizer.TOKENIZER if config.dedup.token else None

        def deduplicate(folder: Path) -> StageOutput:
            units = [{**unit, "priority": priorities[unit["source"]]} for unit in unit_inputs(read, judged)]
            return levels.deduplicate(units, config.dedup, folder, engine, vocabulary)

        judged.append(build("dedup", deduplicate))
        alarms.check(judged[-1], config.dedup.alarms)

    if config.decontaminate:
        wanted = config.decontaminate
        judged.append(build("decontaminate", lambda folder: passes.decontaminate(unit_inputs(read, judged), wanted, folder, engine)))

    parts = build("split", lambda folder: split.split(read, judged, config.split, config.seed, folder, engine))
    if not config.dedup.token:
        tokenizer(parts)
    held = done["dedup"] if config.dedup.token else None
    return build("tokens", lambda folder: encode.encode(read, judged, parts, done["tokenizer"], held, config.tokens, folder, engine))


def finished(config: RunConfig) -> Artifact | None:
    """The `tokens` artifact of this very configuration if every stage before it is there too, else None."""
    found = None
    for name, plan in stage_plans(config).items():
        folder = config.folder / "data" / name / plan.fingerprint
        if not storage.present(folder / artifact.MANIFEST):
            return None
        found = Artifact.open(folder)
        if found.breaches():
            return None
        if name == "dedup":
            alarms.check(found, config.dedup.alarms)
    return found
