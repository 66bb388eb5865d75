"""Candidate pairs: documents that share a band. A candidate is only a suspicion; `verify` decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

# A document is paired with at most this many of a bucket's documents: the first by (priority, document number). Buckets up to this
# size are paired whole, larger ones (boilerplate, templates) cost a star of that width instead of a clique.
BUCKET_LEADERS = 32

# Rows of the band shuffle: sorting by these columns puts a bucket together, its documents in the order of preference.
BANDS = pa.schema([("key", pa.uint64()), ("priority", pa.int32()), ("doc", pa.int64())])

# A pair lies with the document that may go; `rank` is that of its documents file. A row whose `better` is `doc` itself pairs
# nothing: it says that the document is the better one of some pair, so that its shingles will be needed.
PAIRS = pa.schema([("rank", pa.int32()), ("doc", pa.int64()), ("better_priority", pa.int32()), ("better", pa.int64())])


def bucket_pairs(rows: pa.Table) -> pa.Table:
    """Pairs of documents that share a bucket: a reduce from `BANDS` to `PAIRS` rows, each once within the partition."""
    pairs = _bucket_pairs(*(rows[name].to_numpy() for name in BANDS.names), BUCKET_LEADERS)
    return distinct(pa.table([pa.array(column) for column in pairs], schema=PAIRS))


def distinct(rows: pa.Table) -> pa.Table:
    """Each row once: a reduce that keeps the columns."""
    return rows.group_by(rows.column_names, use_threads=False).aggregate([]).cast(rows.schema)


@njit(nogil=True, cache=True)
def _bucket_pairs(key: Any, priority: Any, doc: Any, leaders: int) -> Any:
    count = 0
    start = 0
    for row in range(len(key)):
        if key[row] != key[start]:
            start = row
        place = row - start
        count += min(place, leaders) + (1 if place < leaders and row + 1 < len(key) and key[row + 1] == key[row] else 0)
    ranks = np.empty(count, np.int32)
    docs = np.empty(count, np.int64)
    better_priorities = np.empty(count, np.int32)
    betters = np.empty(count, np.int64)
    filled = 0
    start = 0
    for row in range(len(key)):
        if key[row] != key[start]:
            start = row
        place = row - start
        stop = start + min(place, leaders)
        itself = place < leaders and row + 1 < len(key) and key[row + 1] == key[row]
        for better in range(start, stop + 1):
            if better == stop and not itself:
                break
            other = row if better == stop else better
            ranks[filled] = np.int32(doc[row] >> 32)
            docs[filled] = doc[row]
            better_priorities[filled] = priority[other]
            betters[filled] = doc[other]
            filled += 1
    return ranks, docs, better_priorities, betters
