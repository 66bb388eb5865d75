"""Repeated substrings out of equal fingerprints: which windows of L tokens repeat others, and the ranges of tokens they make up.

Windows that are equal choose the same k-gram at the same place, so their segments meet under one fingerprint. Segments that are equal
as a whole settle all their windows at once; only where one fingerprint has different segments, as at the two ends of a repeated
passage, the windows of one segment of each kind are compared one by one. A group of any size costs what its rows cost, never its pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from headrace.dedup.fingerprints import PLACE_BITS

Keep = Literal["first", "none"]

# A segment of which more is known than that it stands alone. `kept` is the place of an equal segment, for which this one goes, or
# NOWHERE; `compare` is 1 for the first of its kind where there are others, whose windows have yet to be compared.
SHARED = pa.schema([("rank", pa.int32()), ("place", pa.int64()), ("windows", pa.int16()), ("kept", pa.int64()), ("compare", pa.int8())])
NOWHERE = np.iinfo(np.int64).min

# Windows in a row that are equal, one by one, to others of the same file.
RUNS = pa.schema([("place", pa.int64()), ("windows", pa.int64()), ("kept", pa.int64())])

# A row a window; sorting by these columns puts equal windows side by side, the first by (preference, document, place) before the others.
WINDOWS = pa.schema([("window", pa.uint64()), ("preference", pa.int32()), ("place", pa.int64())])

REPEATS = pa.schema([("rank", pa.int32()), ("place", pa.int64()), ("kept", pa.int64())])

Int64s = npt.NDArray[np.int64]
Ids = npt.NDArray[np.unsignedinteger[Any]]


def shared_segments(rows: pa.Table, keep: Keep) -> pa.Table:
    """A reduce from `FINGERPRINTS` to `SHARED` rows: segments that share their fingerprint with another one.

    Those of an index, whose preference is negative, are what others repeat and never go.
    """
    fingerprint = rows["fingerprint"].to_numpy()
    same = fingerprint[1:] == fingerprint[:-1]
    shares = (np.append(same, False) | np.append(False, same))[: len(rows)]
    few = rows.filter(pa.array(shares))  # most rows share nothing
    fingerprint, segment, preference, place = (few[name].to_numpy() for name in ("fingerprint", "segment", "preference", "place"))
    opens = np.append(True, fingerprint[1:] != fingerprint[:-1])[: len(few)]  # the first row of its fingerprint
    leads = opens | np.append(True, segment[1:] != segment[:-1])[: len(few)]  # the first row of its kind
    kinds = np.bincount(np.cumsum(opens) - 1, leads) if len(few) else np.empty(0)
    compare = leads & (kinds[np.cumsum(opens) - 1] > 1)
    kept = partners(leads, place, keep)
    kept[preference < 0] = NOWHERE
    chosen = (kept != NOWHERE) | compare
    columns = [rank_of(place), place, few["windows"].to_numpy(), kept, compare]
    return pa.table([pa.array(column[chosen]).cast(field.type) for column, field in zip(columns, SHARED)], schema=SHARED)


def repeated_windows(rows: pa.Table, keep: Keep) -> pa.Table:
    """A reduce from `WINDOWS` to `REPEATS` rows: windows that go, each with the place of an equal one; those of an index never do."""
    window, preference, place = (rows[name].to_numpy() for name in WINDOWS.names)
    kept = partners(np.append(True, window[1:] != window[:-1])[: len(rows)], place, keep)
    gone = (kept != NOWHERE) & (preference >= 0)
    columns = [rank_of(place), place, kept]
    return pa.table([pa.array(column[gone]).cast(field.type) for column, field in zip(columns, REPEATS)], schema=REPEATS)


def place_of(rank: int, tokens: Int64s) -> Int64s:
    """Places of tokens of the ids of one documents file."""
    return (rank << PLACE_BITS) + tokens


def rank_of(places: Int64s) -> Int64s:
    """Of places the rank of the documents file."""
    return places >> PLACE_BITS


def tokens_of(places: Int64s) -> Int64s:
    """Of places the token, counted from the start of its file of ids."""
    return places & ((1 << PLACE_BITS) - 1)


def partners(leads: npt.NDArray[np.bool_], place: Int64s, keep: Keep) -> Int64s:
    """For each row that goes the place of an equal one, NOWHERE for those that stay: int64 [N].

    It is that of the group's first, which goes itself only under `keep` none, and then for the second.

    Args:
        leads: bool [N], the first row of each group; the members of a group are in their order of preference.
    """
    first = np.maximum.accumulate(np.where(leads, np.arange(len(leads)), 0))
    kept = place[first]
    kept[leads] = NOWHERE
    if keep == "none":
        twice = np.flatnonzero(leads[:-1] & ~leads[1:])
        kept[twice] = place[twice + 1]
    return kept


@dataclass(frozen=True)
class Ranges:
    """Ranges of tokens that are equal to others: [start, end) in one file of ids, and where the equal tokens are."""

    start: Int64s
    end: Int64s
    kept: Int64s  # place of the first of the equal tokens

    def chosen(self, some: npt.NDArray[np.bool_]) -> Ranges:
        """Those of them."""
        return Ranges(self.start[some], self.end[some], self.kept[some])


def joined_windows(start: Int64s, windows: Int64s, kept: Int64s, window: int) -> Ranges:
    """Runs of windows as the ranges they cover; runs that continue one another on both sides become one.

    Args:
        start, windows: int64 [N], first token and number of the windows of each run, which follow one another token by token.
        kept: int64 [N], place of the windows that the run's are equal to, one by one.
        window: L.
    """
    order = np.argsort(start, kind="stable")
    start, windows, kept = start[order], windows[order], kept[order]
    opens = np.ones(len(start), bool)
    opens[1:] = (start[1:] != start[:-1] + windows[:-1]) | (kept[1:] != kept[:-1] + windows[:-1])
    last = _last_of_each(opens)
    return Ranges(start[opens], start[last] + windows[last] + (window - 1), kept[opens])


def verified(ranges: Ranges, ids: Ids, others: Ids, window: int) -> Ranges:
    """What of these ranges is equal, token by token, to what they are said to be equal to, in stretches of at least L tokens.

    Hashes of 64 bits that are equal by chance would otherwise cut a text that is nowhere else.

    Args:
        ranges: with `kept` all in one file.
        ids, others: the ids of the file of the ranges and of that of `kept`.
    """
    position = tokens_of(ranges.kept)
    most = int(np.maximum((ranges.end - ranges.start) // window, 1).sum())
    start, end, source = (np.empty(most, np.int64) for _ in range(3))
    total = _verify(ids, others, ranges.start, ranges.end, position, window, start, end, source)
    start, end, source = start[:total], end[:total], source[:total]
    return Ranges(start, end, ranges.kept[source] + start - ranges.start[source])


def apart(start: Int64s, end: Int64s, label: Int64s, borders: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """The same tokens in ranges that do not overlap, in order; each token has the label of the first range that reaches it.

    Ranges that touch become one if their labels are equal and none of the `borders` (int64, in order) lies between them.
    """
    order = np.lexsort((label, -end, start))
    start, end, label = start[order], end[order], label[order]
    reach = np.maximum.accumulate(end)
    start[1:] = np.maximum(start[1:], reach[:-1])
    some = start < end
    start, end, label = start[some], end[some], label[some]
    part = np.searchsorted(borders, start, side="right")
    opens = np.ones(len(start), bool)
    opens[1:] = (start[1:] != end[:-1]) | (label[1:] != label[:-1]) | (part[1:] != part[:-1])
    return start[opens], end[_last_of_each(opens)], label[opens]


def _last_of_each(opens: npt.NDArray[np.bool_]) -> Int64s:
    """Index of the last member of each group, from a mark on the first of each."""
    return np.append(np.flatnonzero(opens)[1:], len(opens))[: int(opens.sum())] - 1


def without(start: Int64s, end: Int64s, gone_start: Int64s, gone_end: Int64s) -> tuple[Int64s, Int64s]:
    """What is left of ranges when others are taken out: starts and ends. Both lists are in order, their members apart."""
    left = np.empty((2, len(start) + len(gone_start)), np.int64)
    total = _without(start, end, gone_start, gone_end, left)
    return left[0, :total].copy(), left[1, :total].copy()


@njit(nogil=True, cache=True)
def _verify(
    ids: Any, others: Any, starts: Any, ends: Any, positions: Any, window: int, equal_starts: Any, equal_ends: Any, sources: Any
) -> int:
    total = 0
    for number in range(len(starts)):
        shift = positions[number] - starts[number]
        since = starts[number]
        for token in range(starts[number], ends[number] + 1):
            if token < ends[number] and ids[token] == others[token + shift]:
                continue
            if token - since >= window:
                equal_starts[total], equal_ends[total], sources[total] = since, token, number
                total += 1
            since = token + 1
    return total


@njit(nogil=True, cache=True)
def _without(starts: Any, ends: Any, gone_starts: Any, gone_ends: Any, left: Any) -> int:
    total = gone = 0
    for number in range(len(starts)):
        since = starts[number]
        while gone < len(gone_starts) and gone_ends[gone] <= since:
            gone += 1
        other = gone
        while other < len(gone_starts) and gone_starts[other] < ends[number]:
            if gone_starts[other] > since:
                left[0, total], left[1, total] = since, gone_starts[other]
                total += 1
            since = max(since, gone_ends[other])
            other += 1
        if since < ends[number]:
            left[0, total], left[1, total] = since, ends[number]
            total += 1
    return total
