"""Words and shingles for deduplication: maximal runs of `\\w` in the lower-cased text, hashed to 64 bits, five at a time.

The definition is Python's own, `re.findall(r"\\w+", text.lower())`, whatever the script. Lower-casing can depend on context
(a final sigma) and can lengthen a text (U+0130), so texts that hold anything but ASCII go through `str.lower` first; ASCII is
lower-cased by the kernel. Word characters are what `str.isalnum` and the underscore say, as in `re`, hence of the running
Python's Unicode version.

A word is hashed by MurmurHash3's 64-bit mixing of its UTF-8 bytes (Appleby 2011) in lanes of eight bytes; a shingle is a polynomial in
its five word hashes, so the order of the words counts, finalised the same way. Equal hashes are taken for equal words: among
10^9 distinct shingles of one corpus about 0.03 collide.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, uint64

from headrace.text.codepoints import ALPHANUMERIC, class_tables

WORDS_PER_SHINGLE = 5

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_LANE_1 = np.uint64(0x87C37B91114253D5)
_LANE_2 = np.uint64(0x4CF5AD432745937F)
_STEP = np.uint64(0x52DCE729)
_FINAL_1 = np.uint64(0xFF51AFD7ED558CCD)
_FINAL_2 = np.uint64(0xC4CEB9FE1A85EC53)
_POLYNOMIAL = np.uint64(0x9E3779B97F4A7C15)


def word_hashes(texts: Sequence[str]) -> tuple[Int64s, Uint64s]:
    """Hashes of the words of each text, in order.

    Returns:
        offsets int64 [N + 1] and hashes uint64 [W]: those of text i are hashes[offsets[i]:offsets[i + 1]].
    """
    lowered = pa.array([text if text.isascii() else text.lower() for text in texts], pa.large_string())
    _, offset_buffer, data_buffer = lowered.buffers()
    starts = np.frombuffer(offset_buffer, np.int64, len(texts) + 1)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None and starts[-1] else np.empty(0, np.uint8)
    # A word takes at least one byte and the gap before the next another; pages that are never written cost nothing.
    hashes = np.empty((int(starts[-1]) + len(texts)) // 2 + 1, np.uint64)
    offsets = np.empty(len(texts) + 1, np.int64)
    total = _hash_words(data, starts, _ascii_words(), *class_tables(), offsets, hashes)
    return offsets, hashes[:total]


def word_shingles(texts: Sequence[str]) -> tuple[Int64s, Uint64s]:
    """Hashes of the shingles of each text, one for every five consecutive words, repeats included.

    A text of fewer than five words has none: its few words say too little to call it near to another text.

    Returns:
        offsets int64 [N + 1] and shingles uint64 [S]: those of text i are shingles[offsets[i]:offsets[i + 1]].
    """
    return ngrams(*word_hashes(texts), WORDS_PER_SHINGLE)


def ngrams(word_offsets: Int64s, words: Uint64s, n: int) -> tuple[Int64s, Uint64s]:
    """Hashes of every n consecutive words of each text, repeats included; of fewer than n words there are none.

    Args:
        word_offsets, words: as `word_hashes` gives them.

    Returns:
        offsets int64 [N + 1] and hashes uint64 [G]: those of text i are hashes[offsets[i]:offsets[i + 1]].
    """
    counts = np.maximum(np.diff(word_offsets) - (n - 1), 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    hashes = np.empty(int(offsets[-1]), np.uint64)
    _combine_words(word_offsets, words, n, offsets, hashes)
    return offsets, hashes


def shingle_sets(texts: Sequence[str]) -> tuple[Int64s, Uint64s]:
    """The set of shingles of each text: sorted, each once; laid out as by `word_shingles`."""
    return distinct_sets(*word_shingles(texts))


def distinct_sets(offsets: Int64s, hashes: Uint64s) -> tuple[Int64s, Uint64s]:
    """Each text's hashes sorted, each once, laid out as before; `hashes` is sorted in place."""
    for start, stop in itertools.pairwise(offsets):
        hashes[start:stop].sort()
    distinct = np.empty_like(offsets)
    return distinct, hashes[: _drop_repeats(offsets, hashes, distinct)]


@functools.cache
def _ascii_words() -> npt.NDArray[np.uint8]:
    """The lower-cased byte of each ASCII word character, 0 for the others: uint8 [128]."""
    return np.array([ord(chr(c).lower()) if re.match(r"\w", chr(c)) else 0 for c in range(128)], np.uint8)


@njit(inline="always")
def _mix_lane(state: Any, lane: Any) -> Any:
    lane = lane * _LANE_1
    lane = (lane << uint64(31)) | (lane >> uint64(33))
    state = state ^ (lane * _LANE_2)
    state = (state << uint64(27)) | (state >> uint64(37))
    return state * uint64(5) + _STEP


@njit(inline="always")
def _finalise(state: Any) -> Any:
    state = (state ^ (state >> uint64(33))) * _FINAL_1
    state = (state ^ (state >> uint64(33))) * _FINAL_2
    return state ^ (state >> uint64(33))


@njit(nogil=True, cache=True)
def _hash_words(data: Any, starts: Any, ascii_words: Any, pages: Any, classes: Any, offsets: Any, hashes: Any) -> int:
    """Fill `offsets` and `hashes` of `word_hashes`; the number of words. `data` is valid UTF-8, cut into texts at `starts`."""
    total = 0
    offsets[0] = 0
    for text in range(len(starts) - 1):
        position = starts[text]
        end = starts[text + 1]
        state = uint64(0)
        lane = uint64(0)
        length = uint64(0)  # bytes of the word so far; the last length % 8 of them wait in `lane`
        while position < end:
            first = data[position]
            if first < 128:
                width = 1
                lower = ascii_words[first]
                is_word = lower != 0
            else:
                lower = first
                if first < 0xE0:
                    width = 2
                    code = (first & 0x1F) << 6 | (data[position + 1] & 0x3F)
                elif first < 0xF0:
                    width = 3
                    code = (first & 0x0F) << 12 | (data[position + 1] & 0x3F) << 6 | (data[position + 2] & 0x3F)
                else:
                    width = 4
                    code = (first & 0x07) << 18 | (data[position + 1] & 0x3F) << 12 | (data[position + 2] & 0x3F) << 6
                    code |= data[position + 3] & 0x3F
                is_word = classes[pages[code >> 8], code & 255] & ALPHANUMERIC != 0
            if is_word:
                for byte in range(width):
                    value = lower if byte == 0 else data[position + byte]
                    lane |= uint64(value) << ((length & uint64(7)) << uint64(3))
                    length += uint64(1)
                    if length & uint64(7) == uint64(0):
                        state = _mix_lane(state, lane)
                        lane = uint64(0)
            elif length:
                if length & uint64(7):
                    state = _mix_lane(state, lane)
                hashes[total] = _finalise(state ^ length)
                total += 1
                state = uint64(0)
                lane = uint64(0)
                length = uint64(0)
            position += width
        if length:
            if length & uint64(7):
                state = _mix_lane(state, lane)
            hashes[total] = _finalise(state ^ length)
            total += 1
        offsets[text + 1] = total
    return total


@njit(nogil=True, cache=True)
def _combine_words(word_offsets: Any, words: Any, n: int, offsets: Any, hashes: Any) -> None:
    leaving = uint64(1)  # what the oldest word of an n-gram has been multiplied by when it leaves: a step costs the same for every n
    for _ in range(n):
        leaving = leaving * _POLYNOMIAL
    for text in range(len(offsets) - 1):
        place = offsets[text]
        if place == offsets[text + 1]:
            continue
        newest = word_offsets[text] + n
        state = uint64(0)
        for word in range(word_offsets[text], newest):
            state = state * _POLYNOMIAL + words[word]
        hashes[place] = _finalise(state)
        for place in range(offsets[text] + 1, offsets[text + 1]):
            state = state * _POLYNOMIAL + words[newest] - leaving * words[newest - n]
            hashes[place] = _finalise(state)
            newest += 1


@njit(nogil=True, cache=True)
def _drop_repeats(offsets: Any, shingles: Any, distinct: Any) -> int:
    """Move the first of every run of equal values to the front, within each text's sorted part; the offsets then, and the total."""
    total = 0
    distinct[0] = 0
    for text in range(len(offsets) - 1):
        for place in range(offsets[text], offsets[text + 1]):
            if place == offsets[text] or shingles[place] != shingles[place - 1]:
                shingles[total] = shingles[place]
                total += 1
        distinct[text + 1] = total
    return total
