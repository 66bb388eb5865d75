"""A corpus of any size whose duplicates are known: documents of random words, each a function of its number alone.

Of ten documents in a row eight are originals; the ninth is an earlier original with some of its words replaced, the tenth an exact copy of
one. Words follow Zipf's law over a vocabulary of made-up words, so shingles of five are as good as unique, and so are sentences of twenty.
A replaced word has five words that stay on either side and breaks five shingles: the Jaccard similarity is known beforehand.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, uint64

from headrace import schema
from headrace.artifact import table_writer
from headrace.ingest.documents import GROUP_ROWS
from headrace.ingest.listing import unit_size
from headrace.stage import UnitResult

DOCUMENT_BYTES = 4_000  # of a document on average
SIMILARITIES = np.array([0.95, 0.9, 0.85, 0.8, 0.5])  # aimed at, of edited copies; the last is no duplicate, only a temptation
SENTENCE = 20  # words
EDITED, COPIED = 8, 9  # the last digit of such a document's number

_WIDTH = 16  # bytes of the longest word and what follows it
_DRAWS = 1 << 18  # entries of the table that makes a uniform draw one of Zipf's

Int64s = npt.NDArray[np.int64]


def plan(num_bytes: float) -> list[dict[str, Any]]:
    """Units of about `num_bytes` of text in all, as many as ingest would make of it: {"id", "source", "rank", "first", "stop"} of each."""
    documents = max(10, round(num_bytes / DOCUMENT_BYTES))
    units = -(-round(num_bytes) // unit_size(round(num_bytes)))
    edges = [documents * number // units for number in range(units + 1)]
    return [
        {"id": f"u{rank:05d}", "source": "synthetic", "rank": rank, "first": edges[rank], "stop": edges[rank + 1]} for rank in range(units)
    ]


def write_unit(unit: dict[str, Any], folder: Path) -> UnitResult:
    """documents/<id>.parquet, as ingest lays it out."""
    size = 0
    with table_writer(folder / "documents" / f"{unit['id']}.parquet", schema.DOCUMENTS) as writer:
        for start in range(unit["first"], unit["stop"], GROUP_ROWS):
            numbers = np.arange(start, min(start + GROUP_ROWS, unit["stop"]))
            text = texts(numbers)
            size += text.buffers()[2].size
            doc = schema.first_doc(unit["rank"]) + numbers - unit["first"]
            nothing = pa.nulls(len(numbers), pa.string())
            named = pa.array(numbers).cast(pa.string())
            source = pa.array([unit["source"]] * len(numbers), pa.string())
            writer.write_table(pa.table([pa.array(doc), named, text, source, nothing, nothing, nothing], schema=schema.DOCUMENTS))
    rows = unit["stop"] - unit["first"]
    return UnitResult(rows, rows, counters={"text_bytes": size})


def texts(numbers: Int64s) -> pa.StringArray:
    """The texts of these documents."""
    originals, words, edits = described(numbers)
    offsets = np.zeros(len(numbers) + 1, np.int32)
    data = np.empty(int(words.sum()) * _WIDTH + _WIDTH, np.uint8)
    size = _write(numbers.astype(np.uint64), originals.astype(np.uint64), words, edits, *_vocabulary(), offsets, data)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(data[:size].copy()))


def described(numbers: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """What each of these documents is: int64 [N] each, the original (itself, for one), the words, and how many of them are replaced."""
    drawn = _mixed(numbers.astype(np.uint64) ^ np.uint64(0x5EED << 40))
    digit = numbers % 10
    tens = (drawn >> np.uint64(8)) % (numbers // 10 + 1).astype(np.uint64)
    originals = np.where(digit < EDITED, numbers, (tens * np.uint64(10) + drawn % np.uint64(8)).astype(np.int64))
    uniform = (_mixed(originals.astype(np.uint64)) >> np.uint64(11)).astype(np.float64) / (1 << 53)
    words = (100 - 600 * np.log1p(-uniform)).clip(max=6_000).astype(np.int64)
    aim = SIMILARITIES[(drawn >> np.uint64(3)) % np.uint64(len(SIMILARITIES))]
    shingles = words - 4
    edits = np.where(digit == EDITED, np.maximum(1, np.rint(shingles * (1 - aim) / (5 * (1 + aim)))), 0).astype(np.int64)
    return originals, words, edits


def similarities(numbers: Int64s) -> npt.NDArray[np.float64]:
    """Jaccard similarity of each document with its original: float64 [N]; 1 for a copy, and for an original itself."""
    _, words, edits = described(numbers)
    return (words - 4 - 5 * edits) / (words - 4 + 5 * edits)


@functools.cache
def _vocabulary() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Words as uint8 [V, width], their lengths, and int32 [2^18], the word of each draw: p(rank) proportional to 1 / (rank + 2.7)."""
    draw = np.random.default_rng(0)
    weights = 1 / (np.arange(1, 50_001) + 2.7)
    chosen = np.searchsorted(np.cumsum(weights / weights.sum()), (np.arange(_DRAWS) + 0.5) / _DRAWS).astype(np.int32)
    words: dict[bytes, None] = {}
    while len(words) < len(weights):
        length = int(np.clip(draw.poisson(2 + np.log10(len(words) + 1) * 0.9), 1, _WIDTH - 2))
        words[bytes(draw.integers(ord("a"), ord("z") + 1, length).astype(np.uint8))] = None
    table = np.zeros((len(words), _WIDTH), np.uint8)
    for rank, word in enumerate(words):
        table[rank, : len(word)] = np.frombuffer(word, np.uint8)
    return table, np.array([len(word) for word in words], np.uint8), chosen


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea & Flood 2014) as a hash."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@njit(inline="always")
def _next(state: Any) -> Any:
    value = (state ^ (state >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> uint64(27))) * uint64(0x94D049BB133111EB)
    return value ^ (value >> uint64(31))


@njit(nogil=True, cache=True)
def _write(numbers: Any, originals: Any, words: Any, edits: Any, table: Any, lengths: Any, chosen: Any, offsets: Any, data: Any) -> int:
    size = 0
    for row in range(len(numbers)):
        state = _next(originals[row] + uint64(0x1234567))
        other = _next(numbers[row] + uint64(0x7654321))
        # Replaced words stand apart by at least ten words, for the similarities above, and at least five from either end.
        step = words[row] // edits[row] if edits[row] else words[row] + 1
        due = step // 2 if edits[row] else words[row] + 1
        left = edits[row]
        for place in range(words[row]):
            state += uint64(0x9E3779B97F4A7C15)
            word = chosen[_next(state) >> uint64(46)]
            if place == due and left:
                other += uint64(0x9E3779B97F4A7C15)
                replaced = chosen[_next(other) >> uint64(46)]
                word = replaced if replaced != word else (word + 1) % len(table)
                due += step
                left -= 1
            for byte in range(lengths[word]):
                data[size] = table[word, byte]
                size += 1
            if (place + 1) % SENTENCE == 0 or place + 1 == words[row]:
                data[size] = 46
                size += 1
            data[size] = 32
            size += 1
        size -= 1
        offsets[row + 1] = size
    return size


def judged(units: Sequence[dict[str, Any]], reasons: Sequence[pa.ChunkedArray], threshold: float) -> dict[str, float]:
    """How the known duplicates fared.

    Args:
        reasons: of each unit, why its documents were dropped, null for those that stay.
        threshold: an edited copy of at least this similarity is to be found.

    Returns:
        recall_exact; recall_near, and expected_near for 14 bands of 8; wrong, documents dropped that repeat nothing enough.
    """
    counts = dict.fromkeys(("exact", "found_exact", "near", "found_near", "expected_near", "wrong"), 0.0)
    for unit, reason in zip(units, reasons):
        numbers = np.arange(unit["first"], unit["stop"])
        dropped = reason.is_valid().to_numpy()
        copied, similar = numbers % 10 == COPIED, similarities(numbers)
        near = (numbers % 10 == EDITED) & (similar >= threshold)
        counts["exact"] += copied.sum()
        counts["found_exact"] += (copied & dropped).sum()
        counts["near"] += near.sum()
        counts["found_near"] += (near & dropped).sum()
        counts["expected_near"] += (1 - (1 - similar[near] ** 8) ** 14).sum()
        counts["wrong"] += (dropped & ~copied & ~near).sum()
    return {
        "recall_exact": counts["found_exact"] / counts["exact"],
        "recall_near": counts["found_near"] / counts["near"],
        "expected_near": counts["expected_near"] / counts["near"],
        "wrong": counts["wrong"],
    }
