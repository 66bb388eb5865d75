"""Fingerprints of token sequences: what two documents that share L tokens in a row are bound to have in common.

Every window of L tokens chooses one of its k-grams, that with the least hash and of equals the last (window minima: Schleimer,
Wilkerson & Aiken 2003, "Winnowing: local algorithms for document fingerprinting", section 4, with w = L - k + 1). The choice depends on
nothing but the window's content, so equal windows choose equal k-grams at equal places, wherever they stand; their "robust" variant,
which keeps an earlier choice where it can, does not have this. Windows that choose the same k-gram of a document follow one another
and make up a *segment*: the tokens from the first one's start to the last one's end. Of random tokens two in w + 1 are chosen.

Hashes are polynomials in the tokens modulo 2^64, with every token mixed before and every value after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, uint64

# A row a segment. Sorting by these columns puts those with equal fingerprints side by side, of these the ones with equal tokens, and
# of these the first by (preference, document number, place) before the others. 30 bytes a row, 2.2 a token of natural text.
#
# Rows of earlier documents can join those of a run, whatever wrote them: under ranks that no file of the run has, with a preference
# below all of the run's (0) so that they win, and with their ids, by which `windows` are spread and what is found is verified.
FINGERPRINTS = pa.schema(
    [
        ("fingerprint", pa.uint64()),  # hash of the chosen k-gram
        ("segment", pa.uint64()),  # hash of the segment's tokens, and of where in it the k-gram is
        ("preference", pa.int32()),
        ("place", pa.int64()),  # of the segment's first token: rank of the documents file << 32 | token of its ids
        ("windows", pa.int16()),  # that the segment is made of; it has L - 1 tokens more
    ]
)
PLACE_BITS = 32

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]
Ids = npt.NDArray[np.unsignedinteger[Any]]

_BASE = np.uint64(0xD1342543DE82EF95)  # odd
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FINAL_1 = np.uint64(0xFF51AFD7ED558CCD)
_FINAL_2 = np.uint64(0xC4CEB9FE1A85EC53)
_LARGEST = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Segments:
    """Segments of several stretches of tokens, stretch by stretch, in order. Every window of L tokens is in one of them, or in a run.

    A run is a stretch that repeats itself after `period` tokens, as "ababab" does: its windows are those that begin so much earlier.
    """

    counts: Int64s  # [stretches], segments of each
    fingerprint: Uint64s
    segment: Uint64s
    start: Int64s  # first token
    windows: npt.NDArray[np.int16]
    runs: npt.NDArray[np.int64]  # [3, runs], segments that are left out, being equal to both before them: first token, windows, period


def gram_length(window: int) -> int:
    """k for windows of L tokens: half of them, which is 25 for the 50 of Lee et al. 2022 (arXiv:2107.06499)."""
    return (window + 1) // 2


def segments(ids: Ids, starts: Int64s, ends: Int64s, window: int, gram: int) -> Segments:
    """The segments of stretches of tokens.

    Args:
        ids: unsigned integers [T].
        starts, ends: int64 [S], stretch i being ids[starts[i]:ends[i]]; one shorter than a window has no segment.
        window, gram: L and k, tokens, 1 <= k <= L.
    """
    most = int(np.maximum(ends - starts - (window - 1), 0).sum())  # pages of these that are never written take no memory
    fingerprint, segment = np.empty(most, np.uint64), np.empty(most, np.uint64)
    start, count = np.empty(most, np.int64), np.empty(most, np.int16)
    counts, runs = np.empty(len(starts), np.int64), np.empty((most // 3 + 1, 3), np.int64)
    powers = _powers(2 * window - gram + 2)
    total, repeats = _segments(ids, starts, ends, window, gram, powers, counts, fingerprint, segment, start, count, runs)
    some = slice(total)
    return Segments(counts, fingerprint[some].copy(), segment[some].copy(), start[some].copy(), count[some].copy(), runs[:repeats].T.copy())


def window_hashes(ids: Ids, start: Int64s, windows: npt.NDArray[np.int16], window: int) -> tuple[Uint64s, Int64s]:
    """The windows of segments one by one: uint64 [W], the hash of each window's tokens, and int64 [W], its first token."""
    hashes = np.empty(int(windows.sum(dtype=np.int64)), np.uint64)
    places = np.empty(len(hashes), np.int64)
    _window_hashes(ids, start, windows, window, _powers(window + 1), hashes, places)
    return hashes, places


def _powers(count: int) -> Uint64s:
    with np.errstate(over="ignore"):
        return np.cumprod(np.concatenate([np.ones(1, np.uint64), np.full(count - 1, _BASE)]), dtype=np.uint64)


# Unsigned throughout, as everywhere in these kernels: products are meant to overflow, and numba turns uint64 with int64 into float64.


@njit(inline="always")
def _mixed(token: Any) -> Any:
    value = (uint64(token) + uint64(1)) * _GOLDEN
    return value ^ (value >> uint64(32))


@njit(inline="always")
def _finalised(state: Any) -> Any:
    state = (state ^ (state >> uint64(33))) * _FINAL_1
    state = (state ^ (state >> uint64(33))) * _FINAL_2
    return state ^ (state >> uint64(33))


@njit(nogil=True, cache=True)
def _ring(entries: int) -> int:
    size = 1
    while size < entries:
        size *= 2
    return size


@njit(nogil=True, cache=True)
def _segments(
    ids: Any,
    starts: Any,
    ends: Any,
    window: int,
    gram: int,
    powers: Any,
    counts: Any,
    fingerprints: Any,
    hashes: Any,
    firsts: Any,
    windows: Any,
    runs: Any,
) -> tuple[int, int]:
    width = window - gram + 1  # k-grams of a window
    # What is looked back at: the hashes of a window's k-grams, and those of the prefixes from a segment's start on.
    values = np.empty(_ring(width), np.uint64)
    prefixes = np.empty(_ring(window + width + 1), np.uint64)
    value_mask, prefix_mask = len(values) - 1, len(prefixes) - 1
    total = repeats = 0
    for stretch in range(len(starts)):
        counts[stretch] = -total
        alike = 0  # segments in a row that equal the last one written
        low = starts[stretch]
        tokens = ends[stretch] - low
        prefix = uint64(0)
        prefixes[0] = prefix
        least = _LARGEST
        chosen = first = 0  # the k-gram of that hash, which the windows from `first` on choose
        for token in range(tokens + 1 if tokens >= window else 0):
            gram_start = token + 1 - gram
            start = token + 1 - window  # of the window that ends with this token
            value = uint64(0)
            if token < tokens:
                prefix = prefix * _BASE + _mixed(ids[low + token])
                prefixes[(token + 1) & prefix_mask] = prefix
                if gram_start < 0:
                    continue
                value = _finalised(prefix - prefixes[gram_start & prefix_mask] * powers[gram])
                values[gram_start & value_mask] = value
                if value > least and chosen >= start:
                    continue
            if start > first:  # the windows before this one have chosen
                count = start - first
                content = prefixes[token & prefix_mask] - prefixes[first & prefix_mask] * powers[token - first]
                hashed = _finalised(content ^ ((uint64(chosen - first) << uint64(32)) | uint64(count)) * _GOLDEN)
                alike = alike + 1 if alike and hashed == hashes[total - 1] else 1
                if alike <= 2:
                    fingerprints[total], hashes[total] = least, hashed
                    firsts[total], windows[total] = low + first, count
                    total += 1
                else:
                    if alike == 3:
                        runs[repeats, 0], runs[repeats, 1], runs[repeats, 2] = low + first, 0, count
                        repeats += 1
                    runs[repeats - 1, 1] += count
                first = start
            if value <= least:
                least, chosen = value, gram_start
            else:
                least, chosen = values[start & value_mask], start
                for other in range(start + 1, gram_start + 1):
                    if values[other & value_mask] <= least:
                        least, chosen = values[other & value_mask], other
        counts[stretch] += total
    return total, repeats


@njit(nogil=True, cache=True)
def _window_hashes(ids: Any, starts: Any, windows: Any, window: int, powers: Any, hashes: Any, places: Any) -> None:
    total = 0
    for segment in range(len(starts)):
        start = starts[segment]
        state = uint64(0)
        for token in range(start, start + window - 1):
            state = state * _BASE + _mixed(ids[token])
        for place in range(start, start + windows[segment]):
            state = state * _BASE + _mixed(ids[place + window - 1])
            hashes[total] = _finalised(state)
            places[total] = place
            total += 1
            state -= _mixed(ids[place]) * powers[window - 1]
