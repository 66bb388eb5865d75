"""Documents files as deduplication gets them, and whole stages over them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace import artifact, schema
from headrace.artifact import Artifact
from headrace.dedup.levels import VERSION, Dedup, deduplicate, stage_config


@pytest.fixture
def documents_file() -> Callable[..., dict[str, Any]]:
    """Writes a documents file with the verdicts of an earlier stage; the unit of it."""

    def write(
        folder: Path,
        rank: int,
        texts: Sequence[str],
        *,
        prefix: str = "r",
        rejected: Collection[int] = (),
        priority: int = 0,
        source: str = "s",
        measures: Mapping[str, Sequence[Any]] | None = None,
        row_group_rows: int = 7,
    ) -> dict[str, Any]:
        docs = [(rank << 32) + row for row in range(len(texts))]
        nothing = pa.nulls(len(texts), pa.string())
        ids = [f"{prefix}{rank}-{row}" for row in range(len(texts))]
        columns = [docs, ids, texts, [source] * len(texts), nothing, nothing, nothing]
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.DOCUMENTS)], schema=schema.DOCUMENTS)
        name = f"u{rank:05d}"
        paths = [folder / kind / f"{name}.parquet" for kind in ("documents", "earlier")]
        artifact.write_table(table, paths[0], row_group_rows=row_group_rows)
        reasons = pa.array(["gopher" if row in rejected else None for row in range(len(texts))], pa.string())
        verdicts = {"doc": pa.array(docs, pa.int64()), "reason": reasons, **(measures or {})}
        artifact.write_table(pa.table(verdicts), paths[1])
        return {"id": name, "source": source, "priority": priority, "documents": str(paths[0]), "verdicts": [str(paths[1])]}

    return write


@pytest.fixture
def dedup_stage() -> Callable[..., Artifact]:
    """Runs the stage over units and commits its artifact below a run's folder."""

    def build(run: Path, units: Sequence[dict[str, Any]], config: Dedup, tokenizer: Path | None = None) -> Artifact:
        priorities = {unit["source"]: unit["priority"] for unit in units}
        measures = [config.quality] if config.quality else []
        settings = stage_config(config, priorities, measures)

        def make(folder: Path) -> artifact.StageOutput:
            return deduplicate(units, config, folder, "local", tokenizer)

        def event(*_: Any, **__: Any) -> None:
            pass

        return artifact.build(run, "dedup", version=VERSION, config=settings, inputs={"units": str(units)}, make=make, event=event)

    return build
