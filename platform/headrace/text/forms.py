"""Forms in which sentences, lines and paragraphs are compared: named and versioned; pieces of text are hashed in them.

- `unpunctuated-1`: NFC, lower case; runs of white space, punctuation (Unicode categories P) and control characters are one space,
  none at the ends; format characters (joiners, soft hyphens) are left out. Letters, marks, digits and symbols stay: `a < b` is not
  `a > b`, and 1998 is not 1999.
- `ccnet-1`: lower case, every decimal digit 0; control characters and the marks of `CCNET_PUNCTUATION` (which holds no ASCII) are left
  out; no white space at the ends. As `normalize_for_dedup` of cc_net/text_normalizer.py (Wenzek et al. 2020, arXiv:1911.00359).
- `whitespace-1`: NFC; runs of white space are one space, none at the ends; case and punctuation stay. That of exact duplicates of
  documents (`dedup/exact.py`).

Lower case is taken code point by code point: a final sigma is a sigma, and U+0130 is an i. White space is what `str.split` splits at.

A word, where words are counted, is a run of letters, marks, digits and underscores; an ideograph or a kana is a word of its own, since
their scripts put no space between words.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit, uint32, uint64

Form = Literal["unpunctuated-1", "ccnet-1", "whitespace-1"]
COMPOSED = ("unpunctuated-1", "whitespace-1")  # those that bring a text into NFC
CCNET_PUNCTUATION = "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►"

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]

# What becomes of a code point, in the two lowest bits, and what it is. From bit 8 on: the code point that takes its place, less its own.
_SEPARATED, _LEFT_OUT, _WORD, _IDEOGRAPH, _SPACE, _MOVED = 1, 2, 4, 8, 16, 8
_CODE_POINTS, _MASK = 0x110000, 0x1FFFFF
_IDEOGRAPHS = ((0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x40000))

_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x9E3779B97F4A7C15)  # FNV-1a over code points, with a denser multiplier
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def form_hashes(
    data: npt.NDArray[np.uint8], starts: Int64s, stops: Int64s, form: Form, decomposed: npt.NDArray[np.bool_]
) -> tuple[Uint64s, Int32s]:
    """Hashes of P pieces of UTF-8 in a form, uint64 [P], and how many words each holds, int32 [P].

    The hash of a piece of which the form leaves nothing is 0, that of no other piece is. Otherwise equal hashes are taken for equal
    forms: among 10^9 distinct pieces about 0.03 collide.

    Args:
        starts, stops: int64 [P], bytes into `data`.
        decomposed: bool [P], the pieces that may not be in NFC; they are composed one by one.
    """
    hashes, words = np.empty(len(starts), np.uint64), np.empty(len(starts), np.int32)
    _hash_pieces(data, starts, stops, *_table(form), hashes, words)
    if form in COMPOSED and decomposed.any():
        places = np.flatnonzero(decomposed)
        spans = zip(starts[places].tolist(), stops[places].tolist())
        pieces = [unicodedata.normalize("NFC", data[start:stop].tobytes().decode()).encode() for start, stop in spans]
        bounds = np.array([0, *itertools.accumulate(map(len, pieces))], np.int64)
        again = np.empty(len(places), np.uint64), np.empty(len(places), np.int32)
        _hash_pieces(np.frombuffer(b"".join(pieces), np.uint8), bounds[:-1], bounds[1:], *_table(form), *again)
        hashes[places], words[places] = again
    return hashes, words


def two_stage(flat: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint16], npt.NDArray[Any]]:
    """A value for each code point, [1114112], as pages uint16 [4352] and distinct blocks [D, 256]: `blocks[pages[c >> 8], c & 255]`."""
    rows = np.ascontiguousarray(flat).reshape(-1, 256)
    distinct, pages = np.unique(rows.view(f"V{rows.itemsize * 256}").ravel(), return_inverse=True)
    return pages.astype(np.uint16), distinct.view(rows.dtype).reshape(-1, 256)


@functools.cache
def categories() -> npt.NDArray[np.str_]:
    """Unicode's general category of every code point: U2 [1114112]; planes for private use only pass for unassigned."""
    found = np.full(_CODE_POINTS, "Cn", "U2")
    for first, stop in ((0, 0x40000), (0xE0000, 0xE0200)):
        found[first:stop] = [unicodedata.category(chr(code)) for code in range(first, stop)]
    return found


@functools.cache
def _table(form: Form) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """What `_hash_pieces` does with each code point, as a two-stage table."""
    kinds = categories()
    first = kinds.astype("U1")
    flat = np.where(np.isin(first, ["L", "M", "N"]), _WORD, 0).astype(np.uint32)
    flat[ord("_")] |= _WORD
    for start, stop in _IDEOGRAPHS:
        flat[start:stop] |= np.where(flat[start:stop] & _WORD, _IDEOGRAPH, 0).astype(np.uint32)
    # Only these categories hold white space.
    for code in np.flatnonzero((first == "Z") | (kinds == "Cc")).tolist():
        flat[code] |= _SPACE if chr(code).isspace() else 0
    if form != "whitespace-1":
        for code in np.flatnonzero(np.isin(kinds, ["Lu", "Lt", "Nl", "So"])).tolist():  # what has a case: numerals, circled letters, too
            flat[code] |= (ord(chr(code).lower()[0]) - code & _MASK) << _MOVED
        flat[ord("ς")] |= (ord("σ") - ord("ς")) << _MOVED
    if form == "unpunctuated-1":
        flat[(first == "Z") | (first == "P") | (kinds == "Cc")] |= _SEPARATED
        flat[kinds == "Cf"] |= _LEFT_OUT
    elif form == "ccnet-1":
        for code in np.flatnonzero(kinds == "Nd").tolist():
            flat[code] |= (ord("0") - code & _MASK) << _MOVED
        flat[kinds == "Cc"] |= _LEFT_OUT
        flat[[ord(mark) for mark in CCNET_PUNCTUATION if not mark.isdigit()]] |= _LEFT_OUT
    else:
        flat[flat & _SPACE != 0] |= _SEPARATED
    return two_stage(flat)


# Numba's cache sees changes of a compiled function's own file only: so no compiled function calls one of another file, nor inlines one.


@njit(inline="always")
def _code_point(data: Any, position: Any) -> Any:
    """The code point at a byte of valid UTF-8, and its length in bytes."""
    lead = np.int64(data[position])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | (data[position + 1] & 0x3F), 2
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | (data[position + 1] & 0x3F) << 6 | (data[position + 2] & 0x3F), 3
    code = (lead & 0x07) << 18 | (data[position + 1] & 0x3F) << 12 | (data[position + 2] & 0x3F) << 6
    return code | (data[position + 3] & 0x3F), 4


@njit(nogil=True, cache=True)
def _hash_pieces(data: Any, starts: Any, stops: Any, pages: Any, blocks: Any, hashes: Any, words: Any) -> None:
    """Fill `hashes` and `words` of `form_hashes`."""
    ascii_kinds = blocks[pages[0]]
    for piece in range(len(starts)):
        position, stop = starts[piece], stops[piece]
        while position < stop:
            code, width = _code_point(data, position)
            if not blocks[pages[code >> 8], code & 255] & _SPACE:
                break
            position += width
        while stop > position:
            last = stop - 1
            while data[last] & 0xC0 == 0x80:
                last -= 1
            code, _ = _code_point(data, last)
            if not blocks[pages[code >> 8], code & 255] & _SPACE:
                break
            stop = last
        state = _BASIS
        size = uint64(0)
        count = 0
        separated = in_word = False
        while position < stop:
            code = np.int64(data[position])
            if code < 128:
                kind = ascii_kinds[code]
                position += 1
            else:
                code, width = _code_point(data, position)
                kind = blocks[pages[code >> 8], code & 255]
                position += width
            is_word = kind & uint32(_WORD) != 0
            if is_word and (not in_word or kind & uint32(_IDEOGRAPH)):
                count += 1
            in_word = is_word and not kind & uint32(_IDEOGRAPH)
            if kind & uint32(_SEPARATED | _LEFT_OUT):
                separated |= kind & uint32(_SEPARATED) != 0
            else:
                if separated and size:
                    state = (state ^ uint64(32)) * _PRIME
                    size += uint64(1)
                separated = False
                state = (state ^ uint64((code + np.int64(kind >> uint32(_MOVED))) & _MASK)) * _PRIME
                size += uint64(1)
        state = state ^ size
        state = (state ^ (state >> uint64(30))) * _MIX_1
        state = (state ^ (state >> uint64(27))) * _MIX_2
        state = state ^ (state >> uint64(31))
        hashes[piece] = (state | uint64(state == 0)) if size else uint64(0)
        words[piece] = count
