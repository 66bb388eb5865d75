"""Which of several equals is preferred: one integer a document, the lower the better, with the document's number behind it.

The order is total, (source priority, quality, document number), so what stays never depends on what arrived first.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from headrace import artifact, storage
from headrace.config import ConfigError

QUALITY_BITS = 24
MAX_PRIORITIES = 126  # distinct ones, from 1; preferences below 0 are those of an index, whose documents always win


def priority_ranks(priorities: Iterable[int]) -> dict[int, int]:
    """Rank of each of the sources' priorities among them, 1 for the lowest number.

    Raises:
        ConfigError: more distinct priorities than an integer has room for.
    """
    distinct = sorted(set(priorities))
    if len(distinct) > MAX_PRIORITIES:
        raise ConfigError(f"sources: {len(distinct)} distinct priorities; {MAX_PRIORITIES} are the most, so give some sources the same.")
    return {priority: rank for rank, priority in enumerate(distinct, 1)}


def check_quality(quality: str | None, measures: Collection[str]) -> None:
    """Whether the filters of any source measure it.

    Raises:
        ConfigError: none does, with the nearest name that one measures.
    """
    if quality is not None and quality not in measures:
        near = difflib.get_close_matches(quality, measures, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(
            f"dedup.quality = {quality!r}: no source's filters measure that{hint} They measure {', '.join(sorted(measures)) or 'nothing'}."
        )


def preferences(unit: Mapping[str, Any]) -> npt.NDArray[np.int32]:
    """int32 [rows] of one documents file: priority rank << 24 | 24 bits that fall as the quality rises.

    The quality is a column of an earlier stage's verdicts, `unit["quality"]`, the higher the better; null and NaN come last, and so do
    all documents of a source whose filters do not measure it. Without a quality all documents of a source are equal.
    """
    with pq.ParquetFile(storage.local(unit["documents"])) as file:
        rows = file.metadata.num_rows
    order = np.full(rows, unit["priority_rank"] << QUALITY_BITS, np.int32)
    if unit["quality"] is not None:
        order |= falling_bits(_quality(unit, rows))
    return order


def falling_bits(quality: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int32]:
    """int32 [N] in [0, 2^24): lower for a higher quality, equal where float32 agrees in sign, exponent and 15 bits; NaN is the worst."""
    with np.errstate(over="ignore"):  # what float32 does not hold is infinite
        bits = (quality.astype(np.float32) + np.float32(0)).view(np.uint32)  # minus zero becomes zero
    # IEEE 754 orders like integers of sign and magnitude: turn negatives round and put them below the others.
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)) >> np.uint32(32 - QUALITY_BITS)
    falling = np.uint32((1 << QUALITY_BITS) - 1) - rising
    falling[np.isnan(quality)] = (1 << QUALITY_BITS) - 1
    return falling.astype(np.int32)


def _quality(unit: Mapping[str, Any], rows: int) -> npt.NDArray[np.float64]:
    for path in unit["verdicts"]:
        with pq.ParquetFile(storage.local(path)) as file:
            found = unit["quality"] in file.schema_arrow.names
        if found:
            column = artifact.read_table(Path(path), [unit["quality"]])[unit["quality"]]
            return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    return np.full(rows, np.nan)
