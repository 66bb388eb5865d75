"""Keyed reduce over integer tables: in process when they are small, with Ray Data when they are large; the same bytes either way.

Only integers come through here (hashes, band keys, document numbers), never text. The partition of a key is computed by this
module, so it depends neither on the engine nor on what a node has installed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit, uint64

from headrace import artifact, storage
from headrace.stage import data_slot

KeyedEngine = Literal["auto", "local", "ray"]
Reduce = Callable[[pa.Table], pa.Table]

PARTITION = "_partition"
PARTITION_BYTES = 128 << 20  # sorting one takes about three times as much
HERE_WAVE_BYTES = 256 << 20  # reduced at once in this process, whose memory therefore does not grow with the corpus
HERE_WAVES = 8
WAVE_BYTES = 64 << 30  # what one Ray shuffle holds in the object store, which spills the rest to disk


class ShuffleError(RuntimeError):
    """A keyed reduce did not see every row exactly once; its partitions are not to be used."""


def keyed_reduce(
    inputs: Sequence[Path],
    key: str,
    reduce: Reduce,
    folder: Path,
    *,
    partitions: int,
    engine: KeyedEngine,
    wave_bytes: int = WAVE_BYTES,
) -> list[Path]:
    """Bring all rows of a key together and reduce them; the partition files, part-00000.parquet first.

    A partition is written aside, renamed, and recorded in part-00000.json: a killed call continues with those that have no record.
    `inputs`, `key` and `partitions` must be the same again, which the fingerprint in a stage's path sees to.

    Args:
        inputs: Parquet files of integer columns, all of one schema.
        key: the column whose equal values must meet.
        reduce: called once a partition, in whichever process, with its rows sorted by all columns (in the order of the schema);
            maybe with none. A function of its argument alone. Its result is sorted by all columns before it is written.
        folder: receives the partitions; on storage that every worker reaches.
        partitions: the result as a whole does not depend on it, the file that a row is in does.
        engine: "auto" reduces in process while the tables are small (`stays_here`), else with Ray.
        wave_bytes: Ray shuffles that many bytes at a time, and reads the inputs again for each wave; in process it is HERE_WAVE_BYTES.

    Raises:
        ValueError: no inputs, or a file with another schema or without the key.
        TypeError: a column that is no integer.
        ShuffleError: rows were lost or a partition arrived in pieces.
    """
    schema, rows = _schema_and_rows(inputs, key)
    folder.mkdir(parents=True, exist_ok=True)
    there = set(storage.names(folder))
    missing = [number for number in range(partitions) if _record(folder, number).name not in there or not _is_done(folder, number)]
    if missing:
        num_bytes = rows * row_bytes(schema)
        here = stays_here(engine, num_bytes, psutil.virtual_memory().available)
        waves = min(partitions, max(1, -(-num_bytes // (HERE_WAVE_BYTES if here else wave_bytes))))
        for wave in np.array_split(np.arange(partitions), waves):
            if pending := [partition for partition in wave.tolist() if partition in missing]:
                (_reduce_here if here else _reduce_on_ray)(inputs, key, reduce, folder, partitions, pending)
        for partition in missing:  # those that hold no key
            if not _is_done(folder, partition):
                _write_partition(schema.empty_table(), reduce, folder, partition)
    _check_rows(folder, partitions, rows)
    return [_path(folder, partition) for partition in range(partitions)]


def stays_here(engine: KeyedEngine, num_bytes: int, available: int) -> bool:
    """Whether tables of `num_bytes` are reduced in this process: while a wave fits into the `available` memory, sorted three times as
    large, and reading the inputs once a wave costs less than a start of Ray's shuffle."""
    fits = num_bytes <= HERE_WAVES * HERE_WAVE_BYTES and min(num_bytes, HERE_WAVE_BYTES) <= available // 4
    return engine == "local" or (engine == "auto" and fits)


def num_partitions(inputs: Sequence[Path]) -> int:
    """Partitions of about 128 MB for these integer tables: a function of the tables alone, never of the machine."""
    total = 0
    for path in inputs:
        with pq.ParquetFile(storage.local(path)) as file:
            total += file.metadata.num_rows * row_bytes(file.schema_arrow)
    return max(1, -(-total // PARTITION_BYTES))


def row_bytes(schema: pa.Schema) -> int:
    """Bytes of one row in memory."""
    return int(sum(field.type.bit_width // 8 for field in schema))


@njit(inline="always")
def splitmix64(value: Any) -> Any:
    """One step of SplitMix64 (Steele, Lea & Flood 2014) as a hash: uint64 -> uint64, a bijection."""
    value = value + uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> uint64(27))) * uint64(0x94D049BB133111EB)
    return value ^ (value >> uint64(31))


def partition_of(keys: npt.NDArray[np.integer[Any]], partitions: int) -> npt.NDArray[np.int32]:
    """The partition of each key: int32 [N]; equal integers of any width have the same one."""
    return _partition_of(keys.astype(np.int64 if keys.dtype.kind == "i" else np.uint64).view(np.uint64), np.uint64(partitions))


@njit(nogil=True, cache=True)
def _partition_of(keys: Any, partitions: Any) -> Any:
    found = np.empty(len(keys), np.int32)
    for row in range(len(keys)):
        found[row] = np.int32(splitmix64(keys[row]) % partitions)
    return found


def _reduce_here(inputs: Sequence[Path], key: str, reduce: Reduce, folder: Path, partitions: int, wanted: Sequence[int]) -> None:
    tables = [_read_partitioned(path, key, partitions, wanted) for path in inputs]
    rows = _sorted(pa.concat_tables(tables))
    del tables
    for partition, table in _split_partitions(rows):
        _write_partition(table, reduce, folder, partition)


def _reduce_on_ray(inputs: Sequence[Path], key: str, reduce: Reduce, folder: Path, partitions: int, wanted: Sequence[int]) -> None:
    import ray

    paths, place = storage.portable([str(path) for path in inputs]), storage.portable(folder)

    def read(batch: dict[str, npt.NDArray[np.int64]]) -> Iterator[pa.Table]:
        for number in batch["id"]:
            yield _read_partitioned(Path(storage.resolved(paths[number])), key, partitions, wanted)

    def write(block: pa.Table) -> pa.Table:
        # Ray routes by its own hash of the partition number, so a block may hold several partitions or none.
        written, here = [], Path(storage.resolved(place))
        for partition, table in _split_partitions(_sorted(block)):
            _write_partition(table, reduce, here, partition)
            written.append(partition)
        return pa.table({"partition": pa.array(written, pa.int32())})

    slot = data_slot()
    shuffled = (
        ray.data.range(len(paths), override_num_blocks=len(paths))
        .map_batches(read, batch_size=1, resources=slot)
        .repartition(len(wanted), keys=[PARTITION])
        # A batch is one block, and the reducers of a keyed repartition emit their block whole.
        .map_batches(write, batch_size=None, batch_format="pyarrow", resources=slot)
    )
    written = [
        partition
        for batch in shuffled.iter_batches(batch_size=None, batch_format="pyarrow")
        for partition in batch["partition"].to_pylist()
    ]
    if repeated := sorted({partition for partition in written if written.count(partition) > 1}):
        _forget(folder, repeated)
        raise ShuffleError(f"{folder}: Ray delivered partitions {repeated} in several blocks; run the same command again.")


def _read_partitioned(path: Path, key: str, partitions: int, wanted: Sequence[int]) -> pa.Table:
    """The file's rows that belong to the `wanted` partitions, their partition as the first column."""
    table = artifact.read_table(path)
    partition = partition_of(table[key].to_numpy(), partitions)
    table = table.add_column(0, PARTITION, pa.array(partition))
    if len(wanted) < partitions:
        table = table.filter(pc.is_in(table[PARTITION], pa.array(wanted, pa.int32())))
    return table


def _sorted(table: pa.Table) -> pa.Table:
    if _is_sorted(table):
        return table
    telling = [name for name in table.column_names if pc.min_max(table[name])["min"] != pc.min_max(table[name])["max"]]
    return pl.DataFrame(table).sort(telling).to_arrow().cast(table.schema).combine_chunks()


def _is_sorted(table: pa.Table) -> bool:
    settled = np.zeros(max(0, len(table) - 1), bool)  # rows that an earlier column puts behind the one before
    for column in table.columns:
        values = column.to_numpy()
        if bool((~settled & (values[1:] < values[:-1])).any()):
            return False
        settled |= values[1:] > values[:-1]
    return True


def _split_partitions(rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Each partition of a sorted table, without the partition column."""
    column = rows[PARTITION].to_numpy()
    bounds = [0, *(np.flatnonzero(np.diff(column)) + 1).tolist(), len(column)]
    rows = rows.drop_columns([PARTITION])
    for start, stop in itertools.pairwise(bounds):
        if stop > start:
            yield int(column[start]), rows.slice(start, stop - start)


def _write_partition(rows: pa.Table, reduce: Reduce, folder: Path, partition: int) -> None:
    path = _path(folder, partition)
    with storage.scratch_folder(folder, path.stem) as scratch:
        artifact.write_table(_sorted(reduce(rows)), scratch / path.name, dictionary=False)
        (entry,) = storage.publish_tree(scratch, folder)
    storage.write_json(path.with_suffix(".json"), {"rows_in": rows.num_rows, "bytes": entry["bytes"]})


def _is_done(folder: Path, partition: int) -> bool:
    try:
        record = storage.read_json(_record(folder, partition))
    except FileNotFoundError:
        return False
    return not storage.breaches(folder, [{"path": _path(folder, partition).name, "bytes": record["bytes"]}])


def _check_rows(folder: Path, partitions: int, expected: int) -> None:
    found = sum(record["rows_in"] for record in storage.read_all([_record(folder, partition) for partition in range(partitions)]))
    if found != expected:
        _forget(folder, range(partitions))
        raise ShuffleError(f"{folder}: {found} of {expected} rows were reduced; the partitions are discarded, run the same command again.")


def _forget(folder: Path, partitions: Sequence[int]) -> None:
    for partition in partitions:
        storage.remove(_record(folder, partition))


def _path(folder: Path, partition: int) -> Path:
    return folder / f"part-{partition:05d}.parquet"


def _record(folder: Path, partition: int) -> Path:
    return _path(folder, partition).with_suffix(".json")


def _schema_and_rows(inputs: Sequence[Path], key: str) -> tuple[pa.Schema, int]:
    if not inputs:
        raise ValueError(f"keyed_reduce by {key!r}: no input files.")
    schema, rows = None, 0
    for path in inputs:
        with pq.ParquetFile(storage.local(path)) as file:
            found = file.schema_arrow.remove_metadata()
            rows += file.metadata.num_rows
        if schema is None:
            schema = found
        if found != schema:
            raise ValueError(f"{path}: its columns {found.names} are not those of {inputs[0]}: {schema.names}, with their types.")
        if key not in found.names:
            raise ValueError(f"{path}: no column {key!r} among {found.names}.")
        for column in found:
            if not pa.types.is_integer(column.type):
                raise TypeError(f"{path}: column {column.name!r} is {column.type}; only integers are shuffled.")
    return schema, rows
