"""The index of the evaluation text: every n-gram once, by its hash, with the items that hold it.

An n-gram without a letter is left out: a run of numbers is in every table, and belongs to nobody (Marin's decontamination does the same).

An item shorter than n words is one feature, itself: found anywhere if it has 8 words or more, the least that GPT-3's evaluation counted
(Brown et al. 2020, arXiv:2005.14165, appendix C: n between 8 and 13); with 3 to 7 words only where it is a line of its own. At
least 3 of its words have a letter. What is shorter still cannot be told from everyday language and is not looked for.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from headrace import artifact
from headrace.decontaminate.items import Item
from headrace.text.folding import hash_words
from headrace.text.words import string_buffers

MIN_LETTERED_WORDS = 3  # of an item shorter than n
MIN_ANYWHERE = 8  # words from which an item shorter than n is looked for inside lines, too

# One row an item, in the order of the configuration: its number is its row.
ITEMS = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("words", pa.int64(), nullable=False),
        pa.field("n_grams", pa.int64(), nullable=False),  # different ones of its words; 1 for an item that is looked for as a whole; or 0
    ]
)
# One row an n-gram, by hash: its number is its row. Its words are rows `first` to `first + words` of the table of words.
# The hash of a short item of MIN_ANYWHERE words or more is that of its first MIN_ANYWHERE words: one look-up finds all of them.
GRAMS = pa.schema([("hash", pa.uint64()), ("first", pa.int64()), ("words", pa.int32())])
# Which items hold which n-gram, by n-gram, then item. `own` is false where the n-gram only runs over alternatives.
POSTINGS = pa.schema([("gram", pa.int64()), ("item", pa.int64()), ("own", pa.bool_())])
WORDS = pa.schema([("word", pa.large_string())])

Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]

BASE = np.uint64(0x9E3779B97F4A7C15)  # of the polynomial over word hashes
LENGTH_STEP = np.uint64(0xD1B54A32D192ED03)  # sets equal words at different lengths apart


@dataclass(frozen=True)
class Index:
    """What the matching kernel reads. G n-grams, W words."""

    n: int
    hashes: Uint64s  # [G], ascending
    first: Int64s  # [G]
    words: npt.NDArray[np.int32]  # [G]
    text: npt.NDArray[np.uint8]  # the words' UTF-8
    bounds: Int64s  # [W + 1]: word k is text[bounds[k]:bounds[k + 1]]
    filter: npt.NDArray[np.uint64]  # the bits that the tops of the n-grams' hashes name
    short_filter: npt.NDArray[np.uint64]  # and those of short items', small enough to stay in a core's first cache

    def phrase(self, gram: int) -> str:
        """The words of an n-gram, a space between them."""
        first = int(self.first[gram])
        bounds = self.bounds[first : first + int(self.words[gram]) + 1].tolist()
        return " ".join(bytes(self.text[start:stop]).decode() for start, stop in itertools.pairwise(bounds))


@dataclass(frozen=True)
class Postings:
    """Items of n-grams: those of gram g are item[offsets[g]:offsets[g + 1]], ascending."""

    offsets: Int64s  # [G + 1]
    item: Int64s
    own: npt.NDArray[np.bool_]
    n_grams: Int64s  # [items], own ones


def build_index(items: Iterable[Item], n: int, folder: Path) -> dict[str, int]:
    """Write items.parquet, grams.parquet, postings.parquet and words.parquet; counters."""
    described: dict[str, list[Any]] = {name: [] for name in ("benchmark", "item", "row", "text", "words")}
    words: list[str] = []
    owners: list[tuple[int, int, int, bool]] = []  # (item, first word, words, own) of each sequence
    for number, item in enumerate(items):
        for name, value in zip(described, (item.benchmark, item.id, item.row, item.text, len(item.words)), strict=True):
            described[name].append(value)
        for sequence, own in [(item.words, True), *((pair, False) for pair in item.further)]:
            owners.append((number, len(words), len(sequence), own))
            words += sequence
    hashes = hash_words(words)
    lettered = np.zeros(len(words) + 1, np.int64)
    lettered[1:] = np.cumsum(np.fromiter((any(c.isalpha() for c in word) for word in words), bool, len(words)))
    first, lengths, item_of, own_of = _features(owners, lettered, n)
    keys = _keys(hashes, first, np.where(lengths < n, np.minimum(lengths, MIN_ANYWHERE), n))
    table = pa.table([pa.array(words, pa.large_string())], schema=WORDS)
    text, bounds = string_buffers(table["word"].combine_chunks() if words else pa.array([], pa.large_string()))
    order = np.argsort(keys, kind="stable")  # equal hashes in the order of the items
    gram_of = np.empty(len(keys), np.int64)
    representative = np.empty(len(keys), np.int64)
    total = _distinct(keys, order, first, lengths, text, bounds, gram_of, representative)
    representative = representative[:total]
    grams = [keys[representative], first[representative], lengths[representative].astype(np.int32)]
    del keys, first, lengths, representative, hashes, lettered, owners  # with many items these are gigabytes
    order = np.lexsort((~own_of, item_of, gram_of))  # an item's own n-gram comes before the other kind
    gram_of, item_of, own_of = gram_of[order], item_of[order], own_of[order]
    distinct = np.ones(len(gram_of), bool)
    distinct[1:] = (gram_of[1:] != gram_of[:-1]) | (item_of[1:] != item_of[:-1])
    postings = [gram_of[distinct], item_of[distinct], own_of[distinct]]
    n_grams = np.bincount(postings[1][postings[2]], minlength=len(described["item"])).astype(np.int64)
    table_of_items = pa.table([*described.values(), pa.array(n_grams)], schema=ITEMS)
    artifact.write_table(table_of_items, folder / "items.parquet")
    artifact.write_table(pa.table([*map(pa.array, grams)], schema=GRAMS), folder / "grams.parquet")
    artifact.write_table(pa.table([*map(pa.array, postings)], schema=POSTINGS), folder / "postings.parquet")
    artifact.write_table(table, folder / "words.parquet")
    return {"items": len(n_grams), "n_grams": total, "items_without_n_grams": int((n_grams == 0).sum())}


@functools.lru_cache(maxsize=1)
def load_index(folder: Path, n: int) -> Index:
    """The index in a folder; one is kept in each process."""
    grams = artifact.read_table(folder / "grams.parquet").combine_chunks()
    words = artifact.read_table(folder / "words.parquet")["word"].combine_chunks()
    text, bounds = string_buffers(words if len(words) else pa.array([], pa.large_string()))
    hashes, first, lengths = (grams[name].to_numpy() for name in ("hash", "first", "words"))
    short = lengths != n
    filters = _filter(hashes[~short]), _filter(hashes[short])
    return Index(n, hashes, first, lengths, text, bounds, *filters)


@functools.lru_cache(maxsize=1)
def load_postings(folder: Path) -> Postings:
    """Which items hold which n-gram; one table is kept in each process."""
    rows = artifact.read_table(folder / "postings.parquet")
    grams = artifact.read_table(folder / "grams.parquet", ["words"]).num_rows
    gram = rows["gram"].to_numpy()
    n_grams = artifact.read_table(folder / "items.parquet", ["n_grams"])["n_grams"].to_numpy()
    return Postings(np.searchsorted(gram, np.arange(grams + 1)), rows["item"].to_numpy(), rows["own"].to_numpy(), n_grams)


def _features(owners: list[tuple[int, int, int, bool]], lettered: Int64s, n: int) -> tuple[Int64s, Int64s, Int64s, npt.NDArray[np.bool_]]:
    """First word, number of words, item and `own` of everything that is looked for, in the order of the items."""
    item, first, count, flags = np.array(owners, np.int64).reshape(-1, 4).T
    own = flags.astype(bool)
    windows = np.maximum(count - n + 1, 0)
    of = np.repeat(np.arange(len(count)), windows)
    place = np.arange(len(of)) - np.repeat(np.cumsum(windows) - windows, windows)
    starts = first[of] + place
    speaks = lettered[starts + n] > lettered[starts]
    short = np.flatnonzero(own & (count < n) & (lettered[first + count] - lettered[first] >= MIN_LETTERED_WORDS))
    of = np.concatenate([of[speaks], short])
    starts = np.concatenate([starts[speaks], first[short]])
    lengths = np.concatenate([np.full(int(speaks.sum()), n), count[short]])
    order = np.lexsort((starts, of))
    return starts[order].astype(np.int64), lengths[order].astype(np.int64), item[of][order].astype(np.int64), own[of][order]


def _keys(words: Uint64s, first: Int64s, lengths: Int64s) -> Uint64s:
    """The hash of each run of words; as the kernel in `match` computes it."""
    state = np.zeros(len(first), np.uint64)
    for place in range(int(lengths.max()) if len(lengths) else 0):
        inside = np.flatnonzero(lengths > place)
        state[inside] = state[inside] * BASE + words[first[inside] + place]
    state += lengths.astype(np.uint64) * LENGTH_STEP
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@njit(nogil=True, cache=True)
def _distinct(keys: Any, order: Any, first: Any, lengths: Any, text: Any, bounds: Any, gram_of: Any, representative: Any) -> int:
    """Number the different runs of words in the order of their hashes, those of equal hash by their first place.

    Fills `gram_of` (of each run its number) and `representative` (of each number a run); the count. Words are compared, not hashes.
    """
    total = 0
    begin = 0  # first number of this hash
    for rank in range(len(order)):
        run = order[rank]
        if rank == 0 or keys[run] != keys[order[rank - 1]]:
            begin = total
        found = -1
        for number in range(begin, total):
            other = representative[number]
            if lengths[other] != lengths[run]:
                continue
            a, b = bounds[first[run]], bounds[first[other]]
            size = bounds[first[run] + lengths[run]] - a
            same = bounds[first[other] + lengths[other]] - b == size
            for word in range(lengths[run]):  # so that words of other borders are no match
                same = same and bounds[first[run] + word] - a == bounds[first[other] + word] - b
            for place in range(size if same else 0):
                if text[a + place] != text[b + place]:
                    same = False
                    break
            if same:
                found = number
                break
        if found < 0:
            found = total
            representative[total] = run
            total += 1
        gram_of[run] = found
    return total


def _filter(hashes: Uint64s) -> Uint64s:
    """2^k bits, of which those are set that the top k bits of the hashes name: 16 to 32 bits a hash, so that few others pass."""
    bits = max(12, int(16 * len(hashes)).bit_length())
    found = np.zeros(1 << (bits - 6), np.uint64)
    _set_bits(found, hashes, np.uint64(64 - bits))
    return found


@njit(nogil=True, cache=True)
def _set_bits(found: Any, hashes: Any, shift: Any) -> None:
    for key in hashes:
        place = key >> shift
        found[place >> np.uint64(6)] |= np.uint64(1) << (place & np.uint64(63))
