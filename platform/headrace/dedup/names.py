"""The `id` of each row of a documents file, laid out flat on disk: looking one up costs the pages that it lies on.

What is removed names what it repeats, which may be in any file: opening the documents themselves for that would cost a column of each of
them for every file that is judged, and on an object store the whole of each. A file of names is an Arrow file of one record batch, not
compressed, with the sum of each name, which is what tells a flipped bit from a name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, uint64

from headrace import storage

NAMES = pa.schema([("id", pa.large_string()), ("sum", pa.uint64())])


def write_names(ids: pa.ChunkedArray, path: Path) -> None:
    """Write the `id` of every row, or null."""
    ids = ids.cast(pa.large_string()).combine_chunks()
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, NAMES) as writer:
        writer.write_batch(pa.record_batch([ids, pa.array(_sums_of(ids))], schema=NAMES))


def names_of(path: Path, rows: npt.NDArray[np.int64]) -> list[str | None]:
    """The `id` of each of these rows.

    Raises:
        ValueError: the file was cut short, or a name is not what was written.
    """
    path = storage.local(path)
    try:
        with pa.memory_map(str(path)) as file:
            batch = pa.ipc.open_file(file).get_batch(0)
            found = batch.take(pa.array(rows))
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: no whole file of names; delete the stage's folder and run the same command again.") from None
    wrong = np.flatnonzero(_sums_of(found["id"]) != found["sum"].to_numpy())
    if len(wrong):
        raise ValueError(f"{path}: the name of row {rows[wrong[0]]} is damaged; delete the stage's folder and run the same command again.")
    return list(found["id"].to_pylist())


def _sums_of(names: pa.LargeStringArray) -> npt.NDArray[np.uint64]:
    _, offsets, data = names.buffers()
    starts = np.frombuffer(offsets, np.int64, len(names) + 1, 8 * names.offset) if len(names) else np.zeros(1, np.int64)
    return _sums(starts, np.frombuffer(data or b"", np.uint8))


@njit(nogil=True, cache=True)
def _sums(starts: Any, data: Any) -> Any:
    """FNV-1a (Fowler, Noll and Vo; RFC 9923) of each name's bytes: uint64 [N]."""
    sums = np.empty(len(starts) - 1, np.uint64)
    for number in range(len(sums)):
        total = uint64(0xCBF29CE484222325)
        for place in range(starts[number], starts[number + 1]):
            total = (total ^ uint64(data[place])) * uint64(0x100000001B3)
        sums[number] = total
    return sums
