"""Leaving an index: what it holds of this run's documents, and of the indexes that this run read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace import artifact, schema, storage
from headrace.dedup import sidecars
from headrace.dedup.index import FIRST_RANK
from headrace.dedup.index_rows import renumbered
from headrace.dedup.names import write_names
from headrace.dedup.phases import Phases
from headrace.dedup.survivors import FIRST_OF_INDEX, GROUPS
from headrace.stage import UnitResult

# Where a unit's file of a kind lies, in the stage's folder and in the index; other kinds are tables that lie in work/<kind>.
LEFT_IN = {"shingles": "work/shingles", "tokens": "ids", "tokens.bin": "ids", "tokens-2": "work/ids-2", "tokens-2.bin": "work/ids-2"}
SUFFIXES = {"names": "arrow", "shingles": "sets", "tokens.bin": "bin", "tokens-2.bin": "bin"}


def write_index(
    phases: Phases,
    units: Sequence[Mapping[str, Any]],
    kinds: Sequence[str],
    settings: Mapping[str, Any],
    copies: Sequence[Path],
    verify: bool,
) -> list[dict[str, Any]]:
    """index/ in the stage's folder; the entries of its files.

    Args:
        units: those of `phases` that have documents.
        kinds: what it holds of each unit, besides `names`.
        settings: `index.signature_settings`.
        copies: EXACT_REMOVED tables by rank.
        verify: whether candidates are verified.
    """
    old = list(phases.index.units)
    own = sorted(units, key=lambda unit: (unit["priority_rank"], unit["rank"]))
    kinds = [*kinds, "names"]
    listed: list[dict[str, Any]] = []
    for place, unit in enumerate([*old, *own]):
        files = {kind: f"index/{kind.partition('.')[0]}/{place:05d}.{SUFFIXES.get(kind, 'parquet')}" for kind in kinds}
        shared = {"id": unit["id"], "priority_rank": unit["priority_rank"], "files": files}
        of_own = {"origin": None, "ranked": unit["quality"] is not None} if place >= len(old) else {}
        listed.append({**{key: unit[key] for key in ("origin", "ranked") if key in unit}, **shared, **of_own})
    here = phases.small(phases.files("exact"))
    carried = [{**unit, "id": unit["id"], "to": entry["files"]} for unit, entry in zip(old, listed)]
    entries = phases.run_over(carried, carry, "index-carried", here=here)
    parts = dict(zip((unit["id"] for unit in phases.units), phases.part_of_each(copies)))
    written = [{**unit, "copies": parts[unit["id"]], "to": entry["files"]} for unit, entry in zip(own, listed[len(old) :])]
    entries += phases.run_over(written, write_unit, "index-written", here=here)
    ranks = {str(unit["rank"]): FIRST_RANK + place for place, unit in enumerate([*old, *own])}
    shifts = {str(unit["rank"]): unit["shift"] for unit in old}
    content = {"settings": dict(settings), "verify": verify, "units": listed}
    groups = {"copies": [str(path) for path in copies], "work": str(phases.work), "ranks": ranks, "shifts": shifts, "content": content}
    entries += phases.run_one(write_groups, "index-groups-written", here=here, **groups)
    return [file for record in entries for file in record["files"]]


def carry(unit: dict[str, Any], folder: Path) -> UnitResult:
    """The files of one unit of an index that was read, under the names that they have in the one that is written."""
    for kind, path in unit["to"].items():
        _link(Path(unit["files"][kind]), folder / path)
    return UnitResult()


def write_unit(unit: dict[str, Any], folder: Path) -> UnitResult:
    """The files of one documents file of this run."""
    work, copies = Path(unit["work"]), sidecars.rows_of_rank(unit["copies"], unit["rank"])
    for kind, path in unit["to"].items():
        left = work.parent / LEFT_IN.get(kind, f"work/{kind}") / f"{unit['id']}.{SUFFIXES.get(kind, 'parquet')}"
        if kind == "exact":
            rows = artifact.read_table(left)
            kept = rows.filter(pc.invert(pc.is_in(rows["doc"], copies["doc"].combine_chunks())))
            artifact.write_table(kept, folder / path)
        elif kind != "names":
            _link(left, folder / path)
    ids = artifact.read_table(Path(unit["documents"]), ["id"])["id"]
    known = np.zeros(len(ids), bool)
    known[schema.rows_of(kept["doc"].to_numpy())] = True
    named = pc.if_else(pa.array(known), ids, pa.scalar(None, pa.string()))
    write_names(named, folder / unit["to"]["names"])
    return UnitResult()


def write_groups(unit: dict[str, Any], folder: Path) -> UnitResult:
    """index/groups.parquet, numbered by the places of the units in the index, and index/index.json."""
    copies = [artifact.read_table(Path(path), ["doc"])["doc"].to_numpy() for path in unit["copies"]]
    groups = artifact.read_table(Path(unit["work"]) / "groups" / "all.parquet")
    groups = groups.filter(pa.array(~np.isin(groups["doc"].to_numpy(), np.concatenate([np.empty(0, np.int64), *copies]))))
    columns = {name: groups[name].to_numpy() for name in GROUPS.names}
    # A preference as it stands in the files of the unit: what this run added to those of an index is taken away again.
    indexed = columns["survivor"] >= FIRST_OF_INDEX
    shift = renumbered(columns["survivor"][indexed], {int(rank): amount for rank, amount in unit["shifts"].items()}) >> 32
    preference = columns["survivor_preference"].astype(np.int64)
    preference[indexed] -= shift
    columns["survivor_preference"] = preference.astype(np.int32)
    for name in ("doc", "group", "survivor"):
        columns[name] = renumbered(columns[name], {int(rank): new for rank, new in unit["ranks"].items()})
    table = pa.table([pa.array(column) for column in columns.values()], schema=GROUPS).sort_by("doc")
    artifact.write_table(table, folder / "index" / "groups.parquet")
    storage.write_json(folder / "index" / "index.json", unit["content"])
    return UnitResult()


def _link(path: Path, to: Path) -> None:
    """The same file under another name: without a copy where the disk can do that."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(storage.local(path), to)
    except OSError:
        shutil.copyfile(storage.local(path), to)
