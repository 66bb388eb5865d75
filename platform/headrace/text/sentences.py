"""What a sentence is, and where the sentences, lines or paragraphs of a text begin and end.

- A **line** is what line feeds separate; so is a **paragraph**, as in Dolma (Soldaini et al. 2024, arXiv:2402.00159, section 4): the two
  differ in the form (`text/forms.py`) in which they are compared, `ccnet-1` and `whitespace-1`.
- A **sentence** (rules `sentences-1`, compared as `unpunctuated-1`) ends at every line feed. Inside a line it ends with a run of marks that
  end sentences and of closing brackets and quotes behind these (Unicode categories Pe, Pf, Pi, and " and '), if white space follows; the
  full-width marks of Chinese and Japanese need none. It goes on
  1. behind full stops and ellipses before a lower-case letter, behind other marks only if they are inside quotes ("Really?" he said);
  2. behind a lone full stop that follows a single letter (an initial, `e.g.`, `a.m.`), one of `ABBREVIATIONS`, one of `NUMBERED` with a
     digit behind it (`Fig. 3`), or a number of up to three digits that begins its line (`1. Introduction`).

A unit runs up to the next one, white space between them included, and the first begins where its text does, so units reassemble the text.
What its form leaves nothing of (a blank line, a row of asterisks) is no unit and belongs to the one before it. Texts that only hold such
things have no units.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, uint64

from headrace.text.codepoints import ALPHANUMERIC, SPACE, class_tables
from headrace.text.forms import Form, categories, form_hashes, two_stage
from headrace.text.words import string_buffers

Unit = Literal["sentence", "line", "paragraph"]
FORMS: dict[Unit, Form] = {"sentence": "unpunctuated-1", "line": "ccnet-1", "paragraph": "whitespace-1"}

ENDERS = ".!?…‼⁇⁈⁉‽։؟۔।॥။።፧។៕"  # with white space behind them
FULL_WIDTH_ENDERS = "。！？｡"
# Of no more than eight letters, without those that as often end a sentence (etc., Inc.); mostly English, some of other languages.
ABBREVIATIONS = (
    "adm al approx bzw ca capt cf cmdr col cpl dr dra gen gov hon hr jr lt maj messrs mlle mme mr mrs ms np prof rep rev sen sgt sr sra "
    "srta st supt tzn tzw ul viz vs"
)
NUMBERED = (
    "abs apr art aug bd ch chap dec eq eqs ex feb fig figs jan jul jun mar no nos nov nr oct op p pp pt sec sect sep sept tab vol vols"
)

_LEAST_LETTERS, _MOST_LETTERS, _MOST_DIGITS = 2, 8, 3
_SPACE, _ENDER, _FULL_WIDTH, _CLOSER, _LOWER, _LETTER, _DIGIT, _LINE_FEED = (1 << bit for bit in range(8))
_FULL_STOP, _ELLIPSIS, _CARRIAGE_RETURN = 0x2E, 0x2026, 0x0D

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """The units of N texts, one text's after another's. Positions count from the text's start; a text is below 2 GiB, as in Arrow."""

    offsets: Int64s  # int64 [N + 1]: the units of text k are offsets[k] to offsets[k + 1]
    # Of each unit. It begins where the one before it ends, the first at 0; the last ends with the text.
    byte_ends: Int32s
    ends: Int32s  # code points
    line_ends: Int32s  # code point where the line ends that the unit ends with, before the line feed; `ends` where it goes on
    hashes: npt.NDArray[np.uint64]  # of the unit in its form
    words: Int32s


def segment(texts: Sequence[str], unit: Unit) -> Units:
    """The units of each text."""
    strings = pa.array(texts, pa.large_string())
    data, offsets = string_buffers(strings)
    most = int(offsets[-1]) + len(texts)  # a unit takes a byte; pages that are never written take no memory
    first = np.empty(len(texts) + 1, np.int64)
    positions = [np.empty(most, np.int32) for _ in range(3)]
    total = _find_ends(data, offsets, *_unit_tables(unit), *_abbreviations(), first, *positions)
    positions = [column[:total] for column in positions]
    counts = np.diff(first)
    stops = positions[0] + np.repeat(offsets[:-1], counts)
    starts = np.empty_like(stops)
    starts[1:] = stops[:-1]
    starts[first[:-1][counts > 0]] = offsets[:-1][counts > 0]
    decomposed = np.array([not (text.isascii() or unicodedata.is_normalized("NFC", text)) for text in texts], bool)
    hashes, words = form_hashes(data, starts, stops, FORMS[unit], np.repeat(decomposed, counts))
    del starts, stops
    units = np.empty_like(first)
    total = _join_empty(first, *positions, hashes, words, units)
    columns: list[npt.NDArray[Any]] = [*positions, hashes, words]
    return Units(units, *(column[:total] for column in columns))


@functools.cache
def _unit_tables(unit: Unit) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """Two-stage table of the classes of code points; of lines and paragraphs nothing counts but the line feed."""
    flat = np.zeros(0x110000, np.uint8)
    if unit == "sentence":
        pages, classes = class_tables()
        known = classes[pages].reshape(-1)
        kinds = categories()
        flat[known & SPACE != 0] |= _SPACE
        flat[known & ALPHANUMERIC != 0] |= _LETTER
        flat[kinds == "Nd"] |= _DIGIT
        flat[kinds == "Ll"] |= _LOWER
        flat[np.isin(kinds, ["Pe", "Pf", "Pi"])] |= _CLOSER
        flat[[ord(mark) for mark in "\"'"]] |= _CLOSER
        flat[[ord(mark) for mark in ENDERS]] |= _ENDER
        flat[[ord(mark) for mark in FULL_WIDTH_ENDERS]] |= _ENDER | _FULL_WIDTH
    flat[ord("\n")] |= _LINE_FEED
    return two_stage(flat)


@functools.cache
def _abbreviations() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """`ABBREVIATIONS` and `NUMBERED` as sorted integers: their letters as little-endian bytes."""
    packed = [sorted(int.from_bytes(word.encode(), "little") for word in words.split()) for words in (ABBREVIATIONS, NUMBERED)]
    return np.array(packed[0], np.uint64), np.array(packed[1], np.uint64)


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
def _contains(values: Any, value: Any) -> bool:
    place = np.searchsorted(values, value)
    return place < len(values) and values[place] == value


@njit(nogil=True, cache=True)
def _class_before(data: Any, start: Any, position: Any, pages: Any, classes: Any) -> Any:
    """Class of the code point that ends at `position`, and where it begins; 0 at the start of the text."""
    if position <= start:
        return np.int64(0), position
    position -= 1
    while data[position] & 0xC0 == 0x80:
        position -= 1
    code, _ = _code_point(data, position)
    return np.int64(classes[pages[code >> 8], code & 255]), position


@njit(nogil=True, cache=True)
def _is_abbreviation(data: Any, start: Any, stop: Any, digit_follows: Any, pages: Any, classes: Any, always: Any, numbered: Any) -> bool:
    """Whether the full stop at `stop` belongs to what stands before it (rule 2)."""
    kind, position = _class_before(data, start, stop, pages, classes)
    if not kind & _LETTER:
        return False
    before, _ = _class_before(data, start, position, pages, classes)
    if not kind & _DIGIT:
        if not before & _LETTER:
            return True
        packed = uint64(0)
        position = stop
        while position > start and stop - position <= _MOST_LETTERS:
            lower = data[position - 1] | 0x20
            if lower < 97 or lower > 122:
                break
            packed = packed << uint64(8) | uint64(lower)
            position -= 1
        if stop - position < _LEAST_LETTERS or stop - position > _MOST_LETTERS:
            return False
        before, _ = _class_before(data, start, position, pages, classes)
        if before & _LETTER:
            return False
        return _contains(always, packed) or (digit_follows and _contains(numbered, packed))
    position = stop
    while position > start and stop - position <= _MOST_DIGITS and 48 <= data[position - 1] <= 57:
        position -= 1
    if position == stop or stop - position > _MOST_DIGITS:
        return False
    while position > start and (data[position - 1] == 32 or data[position - 1] == 9):
        position -= 1
    return position == start or data[position - 1] == 10


@njit(nogil=True, cache=True)
def _find_ends(
    data: Any, offsets: Any, pages: Any, classes: Any, always: Any, numbered: Any, first: Any, byte_ends: Any, ends: Any, line_ends: Any
) -> int:
    """Ends of the pieces of each text, with or without content; the number of pieces.

    Fills `first` [N + 1], the first piece of each text, and of each piece `byte_ends`, `ends` and `line_ends`, as in `Units` but -1
    where the line goes on.
    """
    ascii_classes = classes[pages[0]]
    piece = 0
    first[0] = 0
    for text in range(len(offsets) - 1):
        start, stop = offsets[text], offsets[text + 1]
        position = begun = start  # of the piece
        beyond = start  # the text's start and the bytes that only continue a code point
        while position < stop:
            lead = data[position]
            if lead < 128:
                kind = np.int64(ascii_classes[lead])
                if not kind & (_ENDER | _LINE_FEED):
                    position += 1
                    continue
                if kind & _LINE_FEED:
                    byte_ends[piece] = position + 1 - start
                    ends[piece] = position + 1 - beyond
                    line_ends[piece] = position - beyond - (position > begun and data[position - 1] == _CARRIAGE_RETURN)
                    piece += 1
                    position += 1
                    begun = position
                    continue
            else:
                code, width = _code_point(data, position)
                kind = np.int64(classes[pages[code >> 8], code & 255])
                if not kind & _ENDER:
                    position += width
                    beyond += width - 1
                    continue
            ender = position
            strong = quoted = full_width = False
            code, width = _code_point(data, position)
            kind = np.int64(classes[pages[code >> 8], code & 255])
            while kind & (_ENDER | _CLOSER):
                if kind & _ENDER:
                    strong |= code != _FULL_STOP and code != _ELLIPSIS
                    full_width |= kind & _FULL_WIDTH != 0
                else:
                    quoted = True
                position += width
                beyond += width - 1
                if position == stop:
                    break
                code, width = _code_point(data, position)
                kind = np.int64(classes[pages[code >> 8], code & 255])
            if position == stop or not (kind & _SPACE or full_width):
                continue
            behind = position
            while kind & _SPACE and not kind & _LINE_FEED:
                position += width
                beyond += width - 1
                if position == stop:
                    break
                code, width = _code_point(data, position)
                kind = np.int64(classes[pages[code >> 8], code & 255])
            if position == stop or kind & _LINE_FEED:
                continue  # there the piece ends anyhow
            if kind & _LOWER and (quoted or not strong):
                continue
            lone = behind == ender + 1 and data[ender] == _FULL_STOP
            if lone and _is_abbreviation(data, start, ender, kind & _DIGIT != 0, pages, classes, always, numbered):
                continue
            byte_ends[piece] = position - start
            ends[piece] = position - beyond
            line_ends[piece] = -1
            piece += 1
            begun = position
        if begun < stop:
            byte_ends[piece] = stop - start
            ends[piece] = stop - beyond
            line_ends[piece] = -1
            piece += 1
        first[text + 1] = piece
    return piece


@njit(nogil=True, cache=True)
def _join_empty(first: Any, byte_ends: Any, ends: Any, line_ends: Any, hashes: Any, words: Any, offsets: Any) -> int:
    """Join pieces without content (hash 0) to the piece before them, in place; `offsets` of `Units`, and the number of units."""
    unit = 0
    offsets[0] = 0
    for text in range(len(first) - 1):
        for piece in range(first[text], first[text + 1]):
            if hashes[piece]:
                hashes[unit], words[unit], line_ends[unit] = hashes[piece], words[piece], line_ends[piece]
                unit += 1
            elif unit > offsets[text] and line_ends[unit - 1] < 0:
                line_ends[unit - 1] = line_ends[piece]
            if unit > offsets[text]:
                byte_ends[unit - 1], ends[unit - 1] = byte_ends[piece], ends[piece]
        for done in range(offsets[text], unit):
            if line_ends[done] < 0:
                line_ends[done] = ends[done]
        offsets[text + 1] = unit
    return unit
