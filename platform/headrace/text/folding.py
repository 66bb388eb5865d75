"""Words under folding, for finding a text again that was written down otherwise: in other case, punctuation, width or line breaks.

Defined a code point at a time, so that what becomes of one depends on nothing around it:

- white space (`str.isspace`) separates words;
- every other code point is replaced by the compatibility decomposition (NFKD) of its full case folding, of which letters and digits
  (`str.isalnum`) stay and all else goes: punctuation, symbols, marks, controls. A hyphen or an apostrophe inside a word is deleted, not a
  gap: "don't" is `dont`, "1.5" is `15`, as where the n-grams of GPT-3 come from (Brown et al. 2020, arXiv:2005.14165, appendix C:
  lower-cased, split at white space, punctuation removed);
- a Han or kana character is a word of its own, since nothing separates words there. Thai, Lao, Khmer and Burmese are left as they
  are, so that what stands between two spaces is one word: rules on words rarely find anything in them.

Accents are marks, so "café" is `cafe` in every Unicode form: NFC and NFD of a text have equal words. NFKC and NFKD, too, but for the few
compatibility characters that decompose into white space (a spacing acute accent) or into several ideographs (㍿).

What is deleted belongs to the word it stands at: a word reaches from white space to white space, or to the ideograph next to it.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import uint64

from headrace.text.words import string_buffers

VERSION = 1  # of the definition; part of the version of every stage that goes by it

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_HASHED_AT_ONCE = 1 << 20
_CODE_POINTS = 0x110000
_LAST_ASSIGNED = 0x3347F  # behind it are tags, variation selectors and private use: nothing that stays
_IDEOGRAPHS = ((0x3041, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3347F))

# What becomes of a code point: the low 3 bits of its entry. The others hold the code point it turns into, or the place of several.
DELETED, SEPARATOR, ITSELF, IDEOGRAPH, OTHER, SEVERAL, OTHER_IDEOGRAPH = range(7)

_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a over code points, then mixed by splitmix64's finaliser
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def fold(character: str) -> str:
    """What becomes of one code point: letters and digits, nothing, or a space; an ideograph comes between two spaces."""
    if character.isspace():
        return " "
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    kept = "".join(c for c in decomposed if c.isalnum())
    return f" {kept} " if any(low <= ord(c) <= high for c in kept for low, high in _IDEOGRAPHS) else kept


class _Folds(dict[int, str]):
    def __missing__(self, code: int) -> str:
        self[code] = found = fold(chr(code))
        return found


_FOLDS = _Folds()


def folded_words(text: str) -> list[str]:
    """The words of a text, in order."""
    return text.translate(_FOLDS).split()


@dataclass(frozen=True)
class Words:
    """Words of N texts, those of text k being offsets[k] to offsets[k + 1]."""

    data: npt.NDArray[np.uint8]  # the texts' UTF-8
    offsets: Int64s  # [N + 1]
    chars: Int64s  # [N], code points of each text
    # Of each word, int32 but for the hashes (uint64) and `first`. Places count from the start of the text.
    hashes: Uint64s
    start: npt.NDArray[np.int32]  # code points
    end: npt.NDArray[np.int32]
    first: npt.NDArray[np.bool_]  # whether it is the first of its line; line feeds end lines
    # int64, bytes into `data`.
    byte_start: Int64s
    byte_end: Int64s


def find_words(texts: pa.Array) -> Words:
    """The words of an Arrow array of N strings, hashed, and where they stand; null reads as empty.

    About 7 bytes of memory for a byte of text; the caller bounds the batch.

    Raises:
        TypeError: not an array of strings.
    """
    data, text_offsets = string_buffers(texts)
    # A word takes a byte and a space, or is an ideograph of three bytes. Pages of these arrays that are never written take no memory.
    most = int(text_offsets[-1] - text_offsets[0] + len(texts)) // 2 + 1
    offsets = np.zeros(len(texts) + 1, np.int64)
    chars = np.zeros(len(texts), np.int64)
    hashes = np.empty(most, np.uint64)
    places = [np.empty(most, np.int32) for _ in range(2)]
    first = np.empty(most, np.bool_)
    byte_places = [np.empty(most, np.int64) for _ in range(2)]
    total = _find_words(data, text_offsets, *fold_tables(), offsets, chars, hashes, *places, first, *byte_places)
    start, end = (column[:total] for column in places)
    byte_start, byte_end = (column[:total] for column in byte_places)
    return Words(data, offsets, chars, hashes[:total], start, end, first[:total], byte_start, byte_end)


def hash_words(words: Sequence[str]) -> Uint64s:
    """Hashes of words as `folded_words` gives them: uint64 [W], equal to those of `find_words`."""
    hashes = np.empty(len(words), np.uint64)
    for start in range(0, len(words), _HASHED_AT_ONCE):
        some = words[start : start + _HASHED_AT_ONCE]
        codes = np.frombuffer("".join(f"{word} " for word in some).encode("utf-32-le"), np.uint32)
        _hash_words(codes, hashes[start : start + len(some)])
    return hashes


@functools.cache
def fold_tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """`fold` of every code point for compiled code, about 0.3 s to make.

    Returns:
        ascii uint8 [128]: the lower-cased letter or digit, 32 for white space, 0 for what is deleted. pages uint16 [4352] and entries
        uint32 [P, 256]: `entries[pages[c >> 8], c & 255]` is c's kind and, eight times, what the kind asks for. several uint32: at
        such a place the number of code points, then these.
    """
    entries = np.zeros(_CODE_POINTS, np.uint32)
    several: list[int] = []
    for code in range(_LAST_ASSIGNED + 1):
        character = chr(code)
        becomes = fold(character)
        kept = becomes.strip()
        if not kept:
            entries[code] = SEPARATOR if becomes else DELETED
        elif kept == character:
            entries[code] = ITSELF if becomes == kept else IDEOGRAPH
        elif len(kept) == 1:
            entries[code] = (OTHER if becomes == kept else OTHER_IDEOGRAPH) | ord(kept) << 3
        else:
            assert len(kept) < 1 << 16
            # The number's upper half says whether they are a word of their own.
            entries[code] = SEVERAL | len(several) << 3
            several += [len(kept) | (becomes != kept) << 16, *map(ord, kept)]
    ascii_folds = np.array([ord(fold(chr(code)) or "\0") for code in range(128)], np.uint8)
    distinct, pages = np.unique(entries.reshape(-1, 256), axis=0, return_inverse=True)
    return ascii_folds, pages.astype(np.uint16).reshape(-1), distinct, np.array(several, np.uint32)


# Numba's cache sees changes of a compiled function's own file only: so no compiled function calls one of another file.


@numba.njit(cache=True, nogil=True, inline="always")
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


@numba.njit(cache=True, nogil=True, inline="always")
def _finalise(state: Any) -> Any:
    state = (state ^ (state >> uint64(30))) * _MIX_1
    state = (state ^ (state >> uint64(27))) * _MIX_2
    return state ^ (state >> uint64(31))


@numba.njit(cache=True, nogil=True)
def _hash_words(codes: Any, hashes: Any) -> None:
    word, state = 0, _BASIS
    for code in codes:
        if code == 32:
            hashes[word] = _finalise(state)
            word += 1
            state = _BASIS
        else:
            state = (state ^ uint64(code)) * _PRIME


@numba.njit(cache=True, nogil=True)
def _find_words(
    data: Any, text_offsets: Any, ascii_folds: Any, pages: Any, entries: Any, several: Any,
    offsets: Any, chars: Any, hashes: Any, starts: Any, ends: Any, firsts: Any, byte_starts: Any, byte_ends: Any,
) -> int:  # fmt: skip
    """Fill the tables of `Words`; the number of words."""
    total = 0
    for text in range(len(text_offsets) - 1):
        stop = text_offsets[text + 1]
        i, char = text_offsets[text], 0
        begin_byte, begin = i, 0  # of the word, or of what is deleted before it
        state, length = _BASIS, 0
        new_line = True
        while i <= stop:
            value: Any
            width: Any = 1
            emitted: Any = np.int64(0)
            several_at: Any = -1
            closes = alone = feeds = False  # whether a word ends before this character; whether the character is a word by itself
            if i == stop:
                closes = True
            elif data[i] < 128:
                emitted = np.int64(ascii_folds[data[i]])
                if emitted == 32:
                    closes = True
                    emitted = np.int64(0)
                    feeds = data[i] == 10
            else:
                value, width = _code_point(data, i)
                entry = np.int64(entries[pages[value >> 8], value & 255])
                kind = entry & 7
                if kind == ITSELF:
                    emitted = value
                elif kind == OTHER:
                    emitted = entry >> 3
                elif kind == SEPARATOR:
                    closes = True
                elif kind == SEVERAL:
                    several_at = entry >> 3
                    closes = alone = several[several_at] >> 16 != 0
                elif kind != DELETED:
                    emitted = value if kind == IDEOGRAPH else entry >> 3
                    closes = alone = True
            if closes:
                if length:
                    hashes[total] = _finalise(state)
                    starts[total], ends[total] = begin, char
                    byte_starts[total], byte_ends[total] = begin_byte, i
                    firsts[total] = new_line
                    new_line = False
                    total += 1
                    state, length = _BASIS, 0
                begin_byte, begin = (i, char) if alone else (i + width, char + 1)
                if feeds:
                    new_line = True
            if emitted:
                state = (state ^ uint64(emitted)) * _PRIME
                length += 1
            elif several_at >= 0:
                for place in range(several_at + 1, several_at + 1 + np.int64(several[several_at] & 0xFFFF)):
                    state = (state ^ uint64(several[place])) * _PRIME
                    length += 1
            if alone:
                hashes[total] = _finalise(state)
                starts[total], ends[total] = begin, char + 1
                byte_starts[total], byte_ends[total] = begin_byte, i + width
                firsts[total] = new_line
                new_line = False
                total += 1
                state, length = _BASIS, 0
                begin_byte, begin = i + width, char + 1
            i += width
            char += 1
        chars[text] = char - 1
        offsets[text + 1] = total
    return total
