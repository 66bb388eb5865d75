"""Candidate pairs: documents that share a band. A candidate is only a suspicion; `verify` decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from headrace import storage

# A document is paired with at most this many of a bucket's documents: the first by (preference, document number). Buckets up to this
# size are paired whole, larger ones (boilerplate, templates) cost a star of that width instead of a clique. Past LARGE_BUCKET the width
# falls until a document meets the first one alone: otherwise a page that ten million sites show would fill the memory with pairs.
BUCKET_LEADERS = 32
LARGE_BUCKET = 1024

# Rows of the band shuffle: sorting by these columns puts a bucket together, its documents in the order of preference.
BANDS = pa.schema([("key", pa.uint64()), ("preference", pa.int32()), ("doc", pa.int64())])

# A pair lies with the document that may go; `rank` is that of its documents file. A row whose `better` is `doc` itself pairs
# nothing: it says that the document is the better one of some pair, so that its shingles will be needed.
PAIRS = pa.schema([("rank", pa.int32()), ("doc", pa.int64()), ("better_preference", pa.int32()), ("better", pa.int64())])


def bucket_pairs(rows: pa.Table) -> pa.Table:
    """Pairs of documents that share a bucket: a reduce from `BANDS` to `PAIRS` rows, each once within the partition.

    Documents of an index, whose preference is negative, come before all others: they are the better ones of pairs and never the worse.
    """
    key, preference, doc = (rows[name].to_numpy() for name in BANDS.names)
    order = np.lexsort((doc, preference))  # rows by (preference, document number): those of a document follow one another
    ordered = doc[order]
    new = np.ones(len(doc), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    documents = ordered[new]
    place = np.empty(len(doc), np.int64)  # of a row's document among these
    place[order] = np.cumsum(new) - 1
    better_preference = np.empty(len(documents), np.int32)
    better_preference[place] = preference
    indexed = int(np.searchsorted(better_preference, 0))
    worse, better = _bucket_pairs(key, place, order, BUCKET_LEADERS, LARGE_BUCKET, indexed)
    columns = [(documents[worse] >> 32).astype(np.int32), documents[worse], better_preference[better], documents[better]]
    return pa.table([pa.array(column) for column in columns], schema=PAIRS)


def distinct(rows: pa.Table) -> pa.Table:
    """Each of these sorted rows once: a reduce that keeps the columns."""
    new = np.zeros(len(rows), bool)
    new[:1] = True
    for column in rows.columns:
        values = column.to_numpy()
        new[1:] |= values[1:] != values[:-1]
    return rows.filter(pa.array(new))


def has_rows(path: Path) -> bool:
    """Whether a table has any rows."""
    with pq.ParquetFile(storage.local(path)) as file:
        return bool(file.metadata.num_rows)


@njit(nogil=True, cache=True)
def _bucket_pairs(key: Any, place: Any, order: Any, leaders: int, large: int, indexed: int) -> Any:
    """Pairs of places (worse, better), the worse from `indexed` on: a document's buckets are gone through together, so that what it
    meets twice is one pair."""
    rows = len(key)
    starts = np.empty(rows, np.int64)  # first row of each row's bucket
    widths = np.empty(rows, np.int32)  # of how many of the first rows each is paired with, those before it
    leads = np.zeros(rows, np.bool_)  # whether others of the bucket are paired with this row
    start = 0
    while start < rows:
        stop = start + 1
        while stop < rows and key[stop] == key[start]:
            stop += 1
        width = min(leaders, max(1, leaders * large // (stop - start)))
        for row in range(start, stop):
            starts[row] = start
            widths[row] = min(row - start, width)
            leads[row] = row + 1 < stop and row - start < width
        start = stop
    worse, better = np.empty(0, np.int64), np.empty(0, np.int64)
    for filling in range(2):  # counted first, so that the arrays are made once and to size
        count = 0
        first = 0
        while first < rows:
            last = first
            met = 0
            while last < rows and place[order[last]] == place[order[first]]:
                met += widths[order[last]] + 1
                last += 1
            if place[order[first]] < indexed:
                first = last
                continue
            found = np.empty(met, np.int64)
            met = 0
            for number in range(first, last):
                row = order[number]
                for other in range(starts[row], starts[row] + widths[row]):
                    found[met] = place[other]
                    met += 1
                if leads[row]:
                    found[met] = place[row]
                    met += 1
            found = found[:met]
            found.sort()
            for number in range(met):
                if number == 0 or found[number] != found[number - 1]:
                    if filling:
                        worse[count] = place[order[first]]
                        better[count] = found[number]
                    count += 1
            first = last
        if not filling:
            worse, better = np.empty(count, np.int64), np.empty(count, np.int64)
    return worse, better
