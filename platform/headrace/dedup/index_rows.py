"""What of an index enters a run: the rows whose keys the new documents have, too, and the groups that the old ones are in.

An index may be far larger than what is new, and most of its keys are met by nothing. So it is read once, row by row, and only rows that
pass a filter of the new keys go into the shuffle: a bit a key in a bitmap of 16 bits a key (Bloom 1970, with one function), of which
every old key that is not among the new has a sixteenth of a chance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit, uint64

from headrace import artifact, schema, storage
from headrace.dedup import sidecars
from headrace.dedup.index import TABLES
from headrace.dedup.phases import Phases
from headrace.dedup.preference import preferences
from headrace.dedup.survivors import GROUPS
from headrace.stage import UnitResult

BITS_A_KEY = 16
MIN_BITS, MAX_BITS = 10, 31  # binary logarithms of the bitmap's size; 256 MB at most, then it lets more pass
NUMBERED = ("doc", "place")  # columns that hold a file's rank in their upper half

_ODD = np.uint64(0x9E3779B97F4A7C15)


def with_index(phases: Phases, kind: str) -> list[Path]:
    """The tables of a kind that the units left in work/<kind>, and those of the index that can have to do with them."""
    own = phases.files(kind)
    if not phases.index.units:
        return own
    keys = phases.work / "keys" / f"{kind}.npy"
    tables = [str(path) for path in own]
    phases.run_one(note_keys, f"keys-{kind}", here=phases.small(own), kind=kind, tables=tables)
    old = [Path(unit["files"][kind]) for unit in phases.index.units]
    phases.run_index(admit, f"index-{kind}", here=phases.small(old), kind=[kind] * len(old), keys=[str(keys)] * len(old))
    return own + [phases.work / f"index-{kind}" / f"{unit['id']}.parquet" for unit in phases.index.units]


def note_keys(unit: dict[str, Any], folder: Path) -> UnitResult:
    """keys/<kind>.npy: the filter of the keys of new tables, uint64 [words]."""
    files = [pq.ParquetFile(storage.local(path), page_checksum_verification=True) for path in unit["tables"]]
    keys = sum(file.metadata.num_rows for file in files)
    bits = min(max((BITS_A_KEY * keys).bit_length(), MIN_BITS), MAX_BITS)
    words = np.zeros(1 << (bits - 6), np.uint64)
    for file in files:
        with file:
            for batch in file.iter_batches(sidecars.FLUSH_ROWS, columns=[TABLES[unit["kind"]]]):
                _note(words, np.uint64(64 - bits), batch.column(0).to_numpy())
    path = folder / "work" / "keys" / f"{unit['kind']}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, words)
    return UnitResult()


def admit(unit: dict[str, Any], folder: Path) -> UnitResult:
    """index-<kind>/ of one unit of the index: its rows that pass the filter, numbered and preferred as in this run."""
    words = np.load(storage.local(unit["keys"]), mmap_mode="r")
    shift = np.uint64(64 - (len(words).bit_length() + 5))
    with pq.ParquetFile(storage.local(unit["files"][unit["kind"]]), page_checksum_verification=True) as file:
        columns = file.schema_arrow.remove_metadata()
        writer = sidecars.RowWriter(folder / "work" / f"index-{unit['kind']}" / f"{unit['id']}.parquet", columns)
        for batch in file.iter_batches(sidecars.FLUSH_ROWS):
            passed = batch.filter(pa.array(_noted(words, shift, batch[TABLES[unit["kind"]]].to_numpy())))
            writer.write(*(_of_this_run(name, passed[name].to_numpy(), unit) for name in columns.names))
        writer.close()
    return UnitResult()


def _of_this_run(name: str, values: npt.NDArray[np.integer[Any]], unit: dict[str, Any]) -> npt.NDArray[np.integer[Any]]:
    if name == "preference":
        return (values.astype(np.int64) + unit["shift"]).astype(np.int32)
    return schema.rows_of(values.astype(np.int64)) + schema.first_doc(unit["rank"]) if name in NUMBERED else values


def preferences_of(unit: dict[str, Any]) -> npt.NDArray[np.int32]:
    """int32 [rows] of one documents file, or of one unit of an index: there of the documents that it holds."""
    if "files" not in unit:
        return preferences(unit)
    table = artifact.read_table(Path(unit["files"]["exact"]), ["preference", "doc"])
    rows = schema.rows_of(table["doc"].to_numpy())
    found = np.zeros(int(rows.max(initial=-1)) + 1, np.int32)
    found[rows] = _of_this_run("preference", table["preference"].to_numpy(), unit)
    return found


def known_groups(phases: Phases) -> list[str]:
    """GROUPS tables of the index, numbered and preferred as in this run."""
    if not phases.index.groups:
        return []
    shifts = {str(unit["rank"]): unit["shift"] for unit in phases.index.units}
    tables = [group["path"] for group in phases.index.groups]
    groups = [dict(group) for group in phases.index.groups]
    phases.run_one(renumber_groups, "index-groups", here=phases.small([Path(path) for path in tables]), groups=groups, shifts=shifts)
    return [str(phases.work / "index-groups" / f"{number:05d}.parquet") for number in range(len(groups))]


def renumber_groups(unit: dict[str, Any], folder: Path) -> UnitResult:
    for number, group in enumerate(unit["groups"]):
        table = artifact.read_table(Path(group["path"]))
        columns = {name: table[name].to_numpy() for name in GROUPS.names}
        for name in ("doc", "group", "survivor"):
            columns[name] = renumbered(columns[name], {int(old): new for old, new in group["ranks"].items()})
        shift = renumbered(columns["survivor"], {int(rank): amount for rank, amount in unit["shifts"].items()}) >> 32
        columns["survivor_preference"] = (columns["survivor_preference"] + shift).astype(np.int32)
        renumbered_table = pa.table([pa.array(column) for column in columns.values()], schema=GROUPS)
        artifact.write_table(renumbered_table, folder / "work" / "index-groups" / f"{number:05d}.parquet")
    return UnitResult()


def renumbered(docs: npt.NDArray[np.int64], ranks: dict[int, int]) -> npt.NDArray[np.int64]:
    """The documents with each file's rank replaced: int64 [N]."""
    old = np.array(sorted(ranks), np.int64)
    new = np.array([ranks[rank] for rank in old.tolist()], np.int64)
    return schema.rows_of(docs) + (new[np.searchsorted(old, docs >> 32)] << 32) if len(docs) else docs


@njit(nogil=True, cache=True)
def _note(words: Any, shift: Any, keys: Any) -> None:
    for key in keys:
        bit = (uint64(key) * _ODD) >> shift
        words[bit >> uint64(6)] |= uint64(1) << (bit & uint64(63))


@njit(nogil=True, cache=True)
def _noted(words: Any, shift: Any, keys: Any) -> Any:
    found = np.empty(len(keys), np.bool_)
    for row in range(len(keys)):
        bit = (uint64(keys[row]) * _ODD) >> shift
        found[row] = words[bit >> uint64(6)] >> (bit & uint64(63)) & uint64(1)
    return found
