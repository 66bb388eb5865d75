"""How much of a text repeats what it said before: lines, paragraphs and n-grams of words.

The definitions are those of `datatrove` 0.10 (pipeline/filters/gopher_repetition_filter.py), of the words, lines and paragraphs of
`text/words.py`:

- repeats are those after the first occurrence; characters are code points, to be divided by those of the whole text;
- the top n-gram (n = 2 to 4) is the most frequent one, of equals the first; its words joined by single spaces count once for each
  occurrence, overlaps and a lone occurrence included, so that the fraction may exceed 1;
- repeated n-grams (n = 5 to 10) are met from left to right; a repeat counts the characters of its words and is skipped whole.

Source of the measures: Rae et al. 2021, arXiv:2112.11446, table A1.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from headrace.text.words import Segments

TOP_N_GRAMS, DUPLICATE_N_GRAMS = (2, 3, 4), (5, 6, 7, 8, 9, 10)

_BASE = np.uint64(0xD6E8FEB86659FD93)  # odd: hashes of word sequences are polynomials of word hashes modulo 2^64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing


def repeated_spans(
    word_hashes: np.ndarray[Any, Any], first_words: np.ndarray[Any, Any], chars: np.ndarray[Any, Any], offsets: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Lines or paragraphs that their text held before.

    Args:
        word_hashes: uint64 [words].
        first_words, chars: int64 [S + 1] and int32 [S], of the S spans.
        offsets: int64 [N + 1], first span of each text.

    Returns:
        int64 [N] repeats and int64 [N], their code points.
    """
    repeats, repeated_chars = np.zeros(len(offsets) - 1, np.int64), np.zeros(len(offsets) - 1, np.int64)
    _repeated_spans(word_hashes, first_words, chars, offsets, repeats, repeated_chars)
    return repeats, repeated_chars


def n_gram_chars(segments: Segments) -> np.ndarray[Any, Any]:
    """Code points of top and of repeated n-grams: int64 [N, 9], for n = 2 to 10; 0 for a text of fewer than n words."""
    chars = np.zeros((len(segments.offsets) - 1, len(TOP_N_GRAMS) + len(DUPLICATE_N_GRAMS)), np.int64)
    _n_gram_chars(segments.word_hashes, segments.word_chars, segments.word_offsets, chars)
    return chars


@numba.njit(cache=True, nogil=True)
def _clear(keys: np.ndarray[Any, Any], entries: int) -> np.uint64:
    """Empty as much of the table as `entries` need at half load; log2 of that size."""
    bits = 3
    while (1 << bits) < 2 * entries:
        bits += 1
    keys[: 1 << bits] = 0
    return np.uint64(bits)


@numba.njit(cache=True, nogil=True)
def _slot(keys: np.ndarray[Any, Any], bits: np.uint64, hashed: np.uint64) -> tuple[Any, np.uint64]:
    """Where `hashed` stands in the table of 2^bits entries, or the free entry that it would take; and its key, never 0.

    Keys of 64 bits stand for the sequences themselves: among the 10^5 n-grams of a long text two differ unseen with odds of 3e-10.
    """
    key = hashed | np.uint64(hashed == 0)
    mask = (1 << np.int64(bits)) - 1
    slot = np.int64((key * _GOLDEN) >> (np.uint64(64) - bits))
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot, key


@numba.njit(cache=True, nogil=True)
def _table_size(offsets: np.ndarray[Any, Any]) -> int:
    """Entries of a table that serves every text."""
    size = 8
    for k in range(len(offsets) - 1):
        while size < 2 * (offsets[k + 1] - offsets[k]):
            size *= 2
    return size


@numba.njit(cache=True, nogil=True)
def _repeated_spans(
    word_hashes: np.ndarray[Any, Any],
    first_words: np.ndarray[Any, Any],
    chars: np.ndarray[Any, Any],
    offsets: np.ndarray[Any, Any],
    repeats: np.ndarray[Any, Any],
    repeated_chars: np.ndarray[Any, Any],
) -> None:
    keys = np.empty(_table_size(offsets), np.uint64)
    for k in range(len(offsets) - 1):
        bits = _clear(keys, offsets[k + 1] - offsets[k])
        for i in range(offsets[k], offsets[k + 1]):
            hashed = np.uint64(0)
            for j in range(first_words[i], first_words[i + 1]):
                hashed = hashed * _BASE + word_hashes[j]
            slot, key = _slot(keys, bits, hashed)
            if keys[slot] == key:
                repeats[k] += 1
                repeated_chars[k] += chars[i]
            keys[slot] = key


@numba.njit(cache=True, nogil=True)
def _n_gram_chars(
    word_hashes: np.ndarray[Any, Any], word_chars: np.ndarray[Any, Any], offsets: np.ndarray[Any, Any], chars: np.ndarray[Any, Any]
) -> None:
    size = _table_size(offsets)
    keys, tallies = np.empty(size, np.uint64), np.empty((size, 2), np.int32)
    n_grams, ends = np.empty(size, np.uint64), np.empty(size + 1, np.int64)
    for k in range(len(offsets) - 1):
        first, num_words = offsets[k], offsets[k + 1] - offsets[k]
        ends[0] = 0
        for i in range(num_words):
            ends[i + 1] = ends[i] + word_chars[first + i]
            n_grams[i] = word_hashes[first + i]
        for n in range(2, min(10, num_words) + 1):
            num = num_words - n + 1
            for i in range(num):  # the n-gram at i: that of n - 1 words, and one word more
                n_grams[i] = n_grams[i] * _BASE + word_hashes[first + i + n - 1]
            if n < 5:
                chars[k, n - 2] = _top(n_grams, num, n, ends, keys, tallies)
            else:
                chars[k, n - 2] = _duplicate(n_grams, num, n, ends, keys)
                if chars[k, n - 2] == 0:
                    break  # a longer one repeats only where this length does


@numba.njit(cache=True, nogil=True)
def _top(
    n_grams: np.ndarray[Any, Any], num: int, n: int, ends: np.ndarray[Any, Any], keys: np.ndarray[Any, Any], tallies: np.ndarray[Any, Any]
) -> int:
    """Code points of the most frequent n-gram, of equals the first, times its occurrences; `tallies` hold (occurrences, first place)."""
    bits = _clear(keys, num)
    most = first = 0
    for i in range(num):
        slot, key = _slot(keys, bits, n_grams[i])
        if keys[slot] == key:
            tallies[slot, 0] += 1
        else:
            keys[slot] = key
            tallies[slot, 0], tallies[slot, 1] = 1, i
        if tallies[slot, 0] > most or (tallies[slot, 0] == most and tallies[slot, 1] < first):
            most, first = tallies[slot, 0], tallies[slot, 1]
    return most * (ends[first + n] - ends[first] + n - 1)


@numba.njit(cache=True, nogil=True)
def _duplicate(n_grams: np.ndarray[Any, Any], num: int, n: int, ends: np.ndarray[Any, Any], keys: np.ndarray[Any, Any]) -> int:
    """Code points of the words of n-grams that occurred before, met from left to right; a repeat is skipped whole."""
    bits = _clear(keys, num)
    chars = i = 0
    while i < num:
        slot, key = _slot(keys, bits, n_grams[i])
        if keys[slot] == key:
            chars += ends[i + n] - ends[i]
            i += n
        else:
            keys[slot] = key
            i += 1
    return chars
