"""The verdicts of deduplication: what the levels dropped and cut, brought together for each documents file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace import artifact, schema, storage
from headrace.dedup import sidecars
from headrace.dedup.cuts import LEVELS, read_level
from headrace.dedup.names import names_of
from headrace.stage import UnitResult
from headrace.verdicts import kept_rows

VERDICTS = pa.schema(
    [
        pa.field("doc", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),  # exact_duplicate | near_duplicate; null = kept, or rejected before
        pa.field("group", pa.int64(), nullable=False),  # smallest document that duplicates link this one to, directly or through others
        pa.field("content", pa.uint64(), nullable=False),  # low half of that document's exact hash; 0 for a document rejected before
        pa.field("score", pa.float32()),  # Jaccard similarity with the document it repeats
    ]
)
REMOVED_ORDER = [("doc", "ascending"), ("level", "ascending"), ("start", "ascending")]


def judge(unit: dict[str, Any], folder: Path) -> UnitResult:
    """verdicts/ and removed/ of one documents file."""
    documents = artifact.read_table(Path(unit["documents"]), ["doc", "id"])
    doc = documents["doc"].to_numpy()
    kept = kept_rows(unit)
    reason = np.full(len(doc), None, object)
    score = np.full(len(doc), np.nan, np.float32)
    listed: list[pa.Table] = []
    counters: dict[str, int] = {}
    for level in (name for name in LEVELS if unit[name]):
        dropped = read_level(unit, level, "dropped")
        rows = schema.rows_of(dropped["doc"].to_numpy())
        reason[rows] = dropped["reason"].to_pylist()
        score[rows] = dropped["score"].to_numpy()
        listed.append(_listed(dropped, level, documents, unit))
        if level != "document":
            cuts = read_level(unit, level, "cuts")
            listed.append(_listed(cuts, level, documents, unit))
            counters[f"{level}_cuts"] = len(cuts)
            counters[f"{level}_cut_chars"] = pc.sum(pc.subtract(cuts["end"], cuts["start"])).as_py() or 0
    group, content = _groups(unit, doc)
    columns = [doc, pa.array(reason, pa.string()), group, content, pa.array(score, mask=np.isnan(score))]
    artifact.write_table(pa.table([*map(pa.array, columns)], schema=VERDICTS), folder / "verdicts" / f"{unit['id']}.parquet")
    removed = pa.concat_tables([schema.REMOVED.empty_table(), *listed])
    artifact.write_table(removed.sort_by(REMOVED_ORDER), folder / "removed" / f"{unit['id']}.parquet")
    rejected = {name: int((reason == name).sum()) for name in sorted(set(reason[reason != None]))}  # noqa: E711
    return UnitResult(int(kept.sum()), int(kept.sum()) - sum(rejected.values()), rejected, counters)


def _listed(table: pa.Table, level: str, documents: pa.Table, unit: dict[str, Any]) -> pa.Table:
    """REMOVED rows of a DROPPED or CUTS table."""
    rows = schema.rows_of(table["doc"].to_numpy())
    nothing = pa.nulls(len(table), pa.int64())
    cut = "start" in table.column_names
    columns = [
        table["doc"],
        documents["id"].take(pa.array(rows)),
        pa.array([level] * len(table), pa.string()),
        table["start"] if cut else nothing,
        table["end"] if cut else nothing,
        _ids(table["kept"], Path(unit["work"])),
        pa.array(np.ones(len(table), np.float32)) if cut else table["score"],
    ]
    return pa.table(columns, schema=schema.REMOVED)


def _groups(unit: dict[str, Any], doc: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Group and content of each document: its own where duplicates link it to none, content 0 where it was rejected before."""
    group, content = doc.copy(), np.zeros(len(doc), np.uint64)
    if len(doc):
        hashes = artifact.read_table(Path(unit["work"]) / "exact" / f"{unit['id']}.parquet", ["doc", "low"])
        content[schema.rows_of(hashes["doc"].to_numpy())] = hashes["low"].to_numpy()
    if len(doc) and unit["document"]:
        linked = sidecars.rows_between(Path(unit["work"]) / "groups" / "all.parquet", "doc", int(doc[0]), int(doc[-1]))
        rows = schema.rows_of(linked["doc"].to_numpy())
        group[rows], content[rows] = linked["group"].to_numpy(), linked["content"].to_numpy()
    return group, content


def _ids(docs: pa.ChunkedArray, work: Path) -> pa.Array:
    """The `id` of each document, looked up in the names of the files that hold them; null stays null."""
    numbers = docs.fill_null(-1).to_numpy()
    ids = np.full(len(numbers), None, object)
    paths = {other["rank"]: other["names"] for other in storage.resolved(storage.read_json(work / "units.json"))}
    for rank in np.unique(numbers[numbers >= 0] >> 32).tolist():
        here = numbers >> 32 == rank
        ids[here] = names_of(Path(paths[rank]), schema.rows_of(numbers[here]))
    return pa.array(ids, pa.string())
