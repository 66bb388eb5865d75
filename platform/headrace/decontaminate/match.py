"""Finding the n-grams of an index in texts: by rolling hashes, past a filter of bits, and confirmed word by word.

Equal hashes are a reason to look, never a find: the words of the text, folded as they are read, are compared with those of the index, so
that a collision removes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, uint32, uint64

from headrace.decontaminate.index import BASE, LENGTH_STEP, MIN_ANYWHERE, Index
from headrace.text.folding import Words, find_words, fold_tables

Int64s = npt.NDArray[np.int64]

CAPACITY = 1 << 16  # finds of one batch that are made room for at first
MIN_LINE = 3  # words of the shortest item that is looked for


@dataclass(frozen=True)
class Finds:
    """N-grams found in texts, all int64 [F], ordered by text and then by the word at which they begin."""

    text: Int64s  # which of the texts
    gram: Int64s  # its number in the index
    start: Int64s  # code points into the text
    end: Int64s


def find(index: Index, texts: pa.Array) -> tuple[Finds, Words]:
    """Every place of every n-gram of the index in an Arrow array of N strings, and the words of the texts."""
    words = find_words(texts)
    short = index.words[index.words != index.n]
    lines = np.zeros(MIN_ANYWHERE, np.bool_)  # lengths of items that are found as a line of their own
    lines[short[short < MIN_ANYWHERE]] = True
    power, short_power = BASE ** np.array([index.n, MIN_ANYWHERE], np.uint64)
    room = CAPACITY
    while True:
        rows = np.empty((3, room), np.int64)
        found = _match(
            words.data, words.offsets, words.hashes, words.first, words.byte_start, words.byte_end, *fold_tables(),
            index.n, bool((short >= MIN_ANYWHERE).any()), lines, power, short_power, index.hashes, index.first, index.words, index.text,
            index.bounds, index.filter, _shift(index.filter), index.short_filter, _shift(index.short_filter), rows,
        )  # fmt: skip
        if found <= room:
            break
        room = found
    order = np.argsort(rows[0, :found] * (len(words.hashes) + 1) + rows[2, :found], kind="stable")
    text, gram, first = rows[:, :found][:, order]
    last = first + index.words[gram] - 1
    return Finds(text, gram, words.start[first].astype(np.int64), words.end[last].astype(np.int64)), words


def _shift(bits: npt.NDArray[np.uint64]) -> np.uint64:
    """How far a hash is shifted to give its bit of a filter."""
    return np.uint64(65 - (64 * len(bits)).bit_length())


# Numba's cache sees changes of a compiled function's own file only: so no compiled function calls one of another file, nor inlines one.


@njit(nogil=True, cache=True, inline="always")
def _code_point(data: Any, i: Any) -> Any:
    """The code point at byte `i` of valid UTF-8 and its length in bytes."""
    lead = np.int64(data[i])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return (lead & 31) << 6 | np.int64(data[i + 1]) & 63, 2
    if lead < 0xF0:
        return (lead & 15) << 12 | (np.int64(data[i + 1]) & 63) << 6 | np.int64(data[i + 2]) & 63, 3
    value = (lead & 7) << 18 | (np.int64(data[i + 1]) & 63) << 12 | (np.int64(data[i + 2]) & 63) << 6 | np.int64(data[i + 3]) & 63
    return value, 4


@njit(nogil=True, cache=True, inline="always")
def _finalise(state: Any) -> Any:
    state = (state ^ (state >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> uint64(27))) * uint64(0x94D049BB133111EB)
    return state ^ (state >> uint64(31))


@njit(nogil=True, cache=True, inline="always")
def _passes(bits: Any, shift: Any, key: Any) -> Any:
    bit = key >> shift
    return (bits[bit >> uint64(6)] >> (bit & uint64(63))) & uint64(1) != uint64(0)


@njit(nogil=True, cache=True)
def _is_word(data: Any, i: Any, stop: Any, ascii_folds: Any, pages: Any, entries: Any, several: Any, text: Any, j: Any, end: Any) -> bool:
    """Whether bytes [i, stop) of `data` fold to the word that bytes [j, end) of `text` are."""
    while i < stop:
        value, width = _code_point(data, i)
        i += width
        code: Any = value
        count: Any = 1
        place: Any = -1
        if value < 128:
            code = np.int64(ascii_folds[value])
            count = 1 if code else 0
        else:
            entry = np.int64(entries[pages[value >> 8], value & 255])
            kind = entry & 7  # DELETED, OTHER and so on, of text/folding.py
            if kind == 0:
                count = 0
            elif kind == 4 or kind == 6:
                code = entry >> 3
            elif kind == 5:
                place = entry >> 3
                count = np.int64(several[place] & uint32(0xFFFF))
        for turn in range(count):
            if place >= 0:
                code = np.int64(several[place + 1 + turn])
            if j >= end:
                return False
            expected, length = _code_point(text, j)
            if code != expected:
                return False
            j += length
    return bool(j == end)


@njit(nogil=True, cache=True)
def _collect(
    key: Any, begin: Any, stop: Any, shortest: Any, longest: Any, data: Any, byte_starts: Any, byte_ends: Any, ascii_folds: Any, pages: Any,
    entries: Any, several: Any, keys: Any, gram_first: Any, gram_words: Any, text: Any, bounds: Any, k: Any, rows: Any, found: int,
) -> int:  # fmt: skip
    """Add what is found at the word `begin` to `rows`: n-grams of this hash that have `shortest` to `longest` words and end by `stop`."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    while low < len(keys) and keys[low] == key:
        length = gram_words[low]
        same = shortest <= length <= longest and begin + length <= stop
        other = gram_first[low]
        place = 0
        while same and place < length:
            same = _is_word(
                data, byte_starts[begin + place], byte_ends[begin + place], ascii_folds, pages, entries, several, text,
                bounds[other + place], bounds[other + place + 1],
            )  # fmt: skip
            place += 1
        if same:
            if found < rows.shape[1]:
                rows[0, found], rows[1, found], rows[2, found] = k, low, begin
            found += 1
        low += 1
    return found


@njit(nogil=True, cache=True)
def _match(
    data: Any, offsets: Any, hashes: Any, firsts: Any, byte_starts: Any, byte_ends: Any, ascii_folds: Any, pages: Any, entries: Any,
    several: Any, n: Any, starts_short: Any, lines: Any, power: Any, short_power: Any, keys: Any, gram_first: Any, gram_words: Any,
    text: Any, bounds: Any, long_filter: Any, shift: Any, short_filter: Any, short_shift: Any, rows: Any,
) -> int:  # fmt: skip
    """Fill `rows` int64 [3, room] with text, n-gram and first word of the finds, as far as there is room; how many there are.

    starts_short: whether there are items that begin with MIN_ANYWHERE words and are shorter than n. power, short_power: BASE to the n and
    to MIN_ANYWHERE.
    """
    found = 0
    long_end, short_end = uint64(n) * LENGTH_STEP, uint64(MIN_ANYWHERE) * LENGTH_STEP
    for k in range(len(offsets) - 1):
        first, stop = offsets[k], offsets[k + 1]
        rolling, short_rolling = uint64(0), uint64(0)  # polynomials of the last n and the last MIN_ANYWHERE words
        line = first
        for word in range(first, stop + 1):
            if word == stop or firsts[word]:
                size = word - line
                if MIN_LINE <= size < len(lines) and lines[size]:
                    state = uint64(0)
                    for place in range(line, word):
                        state = state * BASE + hashes[place]
                    key = _finalise(state + uint64(size) * LENGTH_STEP)
                    if _passes(short_filter, short_shift, key):
                        found = _collect(
                            key, line, word, size, size, data, byte_starts, byte_ends, ascii_folds, pages, entries, several, keys,
                            gram_first, gram_words, text, bounds, k, rows, found,
                        )  # fmt: skip
                line = word
                if word == stop:
                    break
            # Written out for either length: as a function, though inlined, it made the whole search a third slower.
            rolling = rolling * BASE + hashes[word]
            if word - first >= n:
                rolling -= hashes[word - n] * power
            if word - first >= n - 1:
                key = _finalise(rolling + long_end)
                if _passes(long_filter, shift, key):
                    found = _collect(
                        key, word - n + 1, word + 1, n, n, data, byte_starts, byte_ends, ascii_folds, pages, entries, several, keys,
                        gram_first, gram_words, text, bounds, k, rows, found,
                    )  # fmt: skip
            if starts_short:
                short_rolling = short_rolling * BASE + hashes[word]
                if word - first >= MIN_ANYWHERE:
                    short_rolling -= hashes[word - MIN_ANYWHERE] * short_power
                if word - first >= MIN_ANYWHERE - 1:
                    key = _finalise(short_rolling + short_end)
                    if _passes(short_filter, short_shift, key):
                        found = _collect(
                            key, word - MIN_ANYWHERE + 1, stop, MIN_ANYWHERE, n - 1, data, byte_starts, byte_ends, ascii_folds, pages,
                            entries, several, keys, gram_first, gram_words, text, bounds, k, rows, found,
                        )  # fmt: skip
    return found
