"""Train or validation, by a hash of the document's content; near-duplicates that both stay are never parted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field

from headrace import artifact, schema, stage
from headrace.artifact import Artifact, StageOutput
from headrace.config import Config
from headrace.stage import Engine, UnitResult
from headrace.verdicts import kept_rows, unit_inputs

VERSION = 1
TRAIN, VALIDATION = "train", "validation"


class Split(Config):
    """Which documents are held out."""

    validation: Annotated[float, Field(gt=0, lt=0.5)] = 0.01  # share of the near-duplicate groups


def split(documents: Artifact, verdicts: Sequence[Artifact], config: Split, seed: int, folder: Path, engine: Engine) -> StageOutput:
    """Write a part for every document that the earlier `verdicts` keep."""
    stages = [earlier.manifest["stage"] for earlier in verdicts]
    dedup = stages.index("dedup") if "dedup" in stages else None
    units = [
        {**inputs, "validation": config.validation, "seed": seed, "groups": None if dedup is None else inputs["verdicts"][dedup]}
        for inputs in unit_inputs(documents, verdicts)
    ]
    return StageOutput(stage.run_units(split_unit, units, folder, phase="verdicts", engine=engine))


def split_unit(unit: dict[str, Any], folder: Path) -> UnitResult:
    """One documents file: the part of each row. The hash is that of the group's first member, so a group has one part."""
    if unit["groups"]:
        deduplicated = artifact.read_table(Path(unit["groups"]), ["doc", "content"])
        doc, content = deduplicated["doc"], deduplicated["content"].to_numpy()
    else:
        documents = artifact.read_table(Path(unit["documents"]), ["doc", "text"])
        doc = documents["doc"]
        content = np.array([xxhash.xxh3_64_intdigest(text.as_py().encode()) for text in documents["text"]], np.uint64)
    kept = kept_rows(unit)
    held_out = draw(content, unit["seed"]) < unit["validation"]
    part = pc.if_else(pa.array(held_out), pa.scalar(VALIDATION), pa.scalar(TRAIN))
    reason = pc.if_else(pa.array(kept), part, pa.scalar(None, pa.string()))
    table = pa.table([doc, reason], schema=schema.SPLIT)
    artifact.write_table(table, folder / "verdicts" / f"{unit['id']}.parquet")
    rows = int(kept.sum())
    validation = int((kept & held_out).sum())
    return UnitResult(rows, rows, counters={"documents_train": rows - validation, "documents_validation": validation})


def draw(content: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """float64 [N] in [0, 1): a uniform number for each content hash (uint64 [N]), another for each seed (splitmix64's finaliser)."""
    with np.errstate(over="ignore"):
        z = content + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
