"""What a word, a line and a paragraph is, for every rule that counts them.

- A **word** is a maximal run of code points that are not whitespace (`str.split()`): punctuation stays with its word. Its *core* runs
  from its first letter or digit to its last; a word without a core is a *symbol*.
- A **line** is what line feeds separate, if it holds a word; whitespace around it, hence a carriage return or an indent, is no part
  of it. (A rule for code that speaks of a line's whole length counts *physical lines*: everything up to the line feed, blank ones
  and indents included, a carriage return before it not.)
- A **paragraph** is a maximal run of lines with no blank line in between.
- Two lines or paragraphs are **equal** if they hold the same words in the same order, however these are spaced.
- Lengths are in code points. Those of a line and a paragraph run from the first word's start to the last one's end.

Scripts that are written without spaces (Chinese, Japanese, Thai) yield few, long words: rules on words do not fit them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from headrace.text.codepoints import ALPHABETIC, ALPHANUMERIC, SPACE, class_tables

VERSION = 1  # of the definitions above; part of the version of every stage that counts words

_LINE_FEED, _CARRIAGE_RETURN = 10, 13
_OFFSET_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, then mixed by splitmix64's finaliser
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Segments:
    """Words, lines and paragraphs of N texts, each table over all texts; positions are bytes into `data`."""

    data: np.ndarray[Any, Any]  # uint8, the texts' UTF-8
    offsets: np.ndarray[Any, Any]  # int64 [N + 1]: text k is data[offsets[k]:offsets[k + 1]]
    # Of each text, int64 [N].
    chars: np.ndarray[Any, Any]  # code points
    alphanumerics: np.ndarray[Any, Any]  # of them, letters and digits
    physical_lines: np.ndarray[Any, Any]
    physical_line_chars: np.ndarray[Any, Any]  # code points of all physical lines
    max_line_chars: np.ndarray[Any, Any]  # code points of the longest physical line
    # int64 [N + 1]: the words of text k are word_offsets[k] to word_offsets[k + 1], and so on.
    word_offsets: np.ndarray[Any, Any]
    line_offsets: np.ndarray[Any, Any]
    paragraph_offsets: np.ndarray[Any, Any]
    # Of each word.
    word_hashes: np.ndarray[Any, Any]  # uint64; tells words apart but for a chance of 2^-64 a pair, so no rule compares their bytes
    word_chars: np.ndarray[Any, Any]  # int32, code points
    core_starts: np.ndarray[Any, Any]  # int64
    core_bytes: np.ndarray[Any, Any]  # int32, 0 for a symbol
    alphabetic: np.ndarray[Any, Any]  # bool: has a letter
    # Of each line and paragraph. The first words have one entry more, the number of words.
    line_starts: np.ndarray[Any, Any]  # int64
    line_stops: np.ndarray[Any, Any]  # int64
    line_chars: np.ndarray[Any, Any]  # int32
    line_first_words: np.ndarray[Any, Any]  # int64
    paragraph_chars: np.ndarray[Any, Any]  # int32
    paragraph_first_words: np.ndarray[Any, Any]  # int64


def segment(texts: pa.Array) -> Segments:
    """Words, lines and paragraphs of an Arrow array of N strings, in one pass over its bytes; null reads as empty.

    About 5 bytes of memory for a byte of text; the caller bounds the batch.

    Raises:
        TypeError: not an array of strings.
    """
    data, offsets = string_buffers(texts)
    num = len(texts)
    # A word takes a byte, and another parts it from the next. Pages of these arrays that are never written take no memory.
    most = int(offsets[-1] - offsets[0] + num) // 2 + 1
    totals = np.zeros((5, num), np.int64)
    starts = np.zeros((3, num + 1), np.int64)
    words = [np.empty(most, kind) for kind in (np.uint64, np.int32, np.int64, np.int32, np.bool_)]
    lines = [np.empty(most + 1, kind) for kind in (np.int64, np.int64, np.int32, np.int64)]
    paragraphs = [np.empty(most + 1, kind) for kind in (np.int32, np.int64)]
    _segment(data, offsets, *class_tables(), totals, starts, *words, *lines, *paragraphs)
    num_words, num_lines, num_paragraphs = (int(n) for n in starts[:, -1])
    tables = [
        *(column[:num_words] for column in words),
        *(column[:num_lines] for column in lines[:3]),
        lines[3][: num_lines + 1],
        paragraphs[0][:num_paragraphs],
        paragraphs[1][: num_paragraphs + 1],
    ]
    return Segments(*[data, offsets, *totals, *starts, *tables])


def string_buffers(texts: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The UTF-8 bytes (uint8) behind an Arrow array of N strings, not copied, and the int64 [N + 1] offsets of the strings in them.

    Raises:
        TypeError: not an array of strings.
    """
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise TypeError(f"texts are {texts.type}, expected string or large_string; cast them first.")
    if texts.null_count:
        texts = texts.fill_null("")
    width: Any = np.int32 if pa.types.is_string(texts.type) else np.int64
    _, offset_buffer, data_buffer = texts.buffers()
    offsets = np.zeros(len(texts) + 1, np.int64)
    if len(texts):  # a slice shares its parent's buffers: `offset` says where it begins
        offsets[:] = np.frombuffer(offset_buffer, width, len(texts) + 1, texts.offset * np.dtype(width).itemsize)
    data = np.zeros(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    data.flags.writeable = False  # one type for the compiled functions, whether or not Arrow owns the memory
    return data, offsets


# Numba's cache sees changes of a compiled function's own file only: so no compiled function calls one of another file.


@numba.njit(cache=True, nogil=True, inline="always")
def _code_point(data: np.ndarray[Any, Any], i: Any, stop: Any) -> tuple[Any, Any]:
    """The code point (int64) at byte `i` and its length in bytes; a byte that begins no whole UTF-8 sequence stands for itself."""
    lead = np.int64(data[i])
    if lead >= 0xF0 and i + 3 < stop:
        value = (lead & 7) << 18 | (np.int64(data[i + 1]) & 63) << 12 | (np.int64(data[i + 2]) & 63) << 6 | np.int64(data[i + 3]) & 63
        return min(value, 0x10FFFF), 4
    if lead >= 0xE0 and i + 2 < stop:
        return (lead & 15) << 12 | (np.int64(data[i + 1]) & 63) << 6 | np.int64(data[i + 2]) & 63, 3
    if lead >= 0xC0 and i + 1 < stop:
        return (lead & 31) << 6 | np.int64(data[i + 1]) & 63, 2
    return lead, 1


@numba.njit(cache=True, nogil=True)
def _segment(
    data: np.ndarray[Any, Any],
    offsets: np.ndarray[Any, Any],
    pages: np.ndarray[Any, Any],
    classes: np.ndarray[Any, Any],
    totals: np.ndarray[Any, Any],
    starts: np.ndarray[Any, Any],
    word_hashes: np.ndarray[Any, Any],
    word_chars: np.ndarray[Any, Any],
    core_starts: np.ndarray[Any, Any],
    core_bytes: np.ndarray[Any, Any],
    alphabetic: np.ndarray[Any, Any],
    line_starts: np.ndarray[Any, Any],
    line_stops: np.ndarray[Any, Any],
    line_chars: np.ndarray[Any, Any],
    line_first_words: np.ndarray[Any, Any],
    paragraph_chars: np.ndarray[Any, Any],
    paragraph_first_words: np.ndarray[Any, Any],
) -> None:
    """Fill the tables of `Segments`; `totals` [5, N] and `starts` [3, N + 1] hold its columns of texts and of their first entries."""
    word = line = paragraph = 0
    for k in range(len(offsets) - 1):
        stop = offsets[k + 1]
        in_word = in_line = in_paragraph = False
        hashed = _OFFSET_BASIS
        kinds = 0  # union of the classes of the word's code points
        word_begin = line_begin = paragraph_begin = physical_begin = last_char = 0  # code points from the text's start
        core_start = core_stop = last_stop = offsets[k]
        alphanumerics = physical_lines = physical_chars = max_chars = 0
        value: Any
        kind: Any
        i, char = offsets[k], 0
        while i <= stop:
            length = 1
            if i == stop:  # an end of line that is no character closes whatever is open
                value, kind = _LINE_FEED, SPACE
            else:
                value = np.int64(data[i])
                if value >= 128:
                    value, length = _code_point(data, i, stop)
                kind = np.int64(classes[pages[value >> 8], value & 255])
            if kind & SPACE:
                if in_word:
                    in_word = False
                    hashed = (hashed ^ (hashed >> np.uint64(30))) * _MIX_1
                    hashed = (hashed ^ (hashed >> np.uint64(27))) * _MIX_2
                    word_hashes[word] = hashed ^ (hashed >> np.uint64(31))
                    word_chars[word] = char - word_begin
                    core_starts[word] = core_start
                    core_bytes[word] = core_stop - core_start
                    alphabetic[word] = kinds & ALPHABETIC != 0
                    word += 1
                    last_stop, last_char = i, char
                if value == _LINE_FEED:
                    ends_paragraph = i == stop or not in_line
                    if in_line:
                        in_line = False
                        line_stops[line] = last_stop
                        line_chars[line] = last_char - line_begin
                        line += 1
                    if ends_paragraph and in_paragraph:
                        in_paragraph = False
                        paragraph_chars[paragraph] = last_char - paragraph_begin
                        paragraph += 1
                    whole = char - physical_begin
                    if i < stop or whole > 0:  # nothing follows a last line feed
                        whole -= whole > 0 and data[i - 1] == _CARRIAGE_RETURN
                        physical_lines += 1
                        physical_chars += whole
                        max_chars = max(max_chars, whole)
                    physical_begin = char + 1
            else:
                if not in_word:
                    in_word = True
                    word_begin = char
                    hashed = _OFFSET_BASIS
                    core_start = core_stop = i
                    kinds = 0
                    if not in_line:
                        in_line = True
                        line_begin = char
                        line_starts[line] = i
                        line_first_words[line] = word
                        if not in_paragraph:
                            in_paragraph = True
                            paragraph_begin = char
                            paragraph_first_words[paragraph] = word
                for j in range(length):
                    hashed = (hashed ^ np.uint64(data[i + j])) * _PRIME
                if kind & ALPHANUMERIC:
                    if core_start == core_stop:
                        core_start = i
                    core_stop = i + length
                    alphanumerics += 1
                    kinds |= kind
            i += length
            char += 1
        totals[0, k], totals[1, k], totals[2, k] = char - 1, alphanumerics, physical_lines
        totals[3, k], totals[4, k] = physical_chars, max_chars
        starts[0, k + 1], starts[1, k + 1], starts[2, k + 1] = word, line, paragraph
    line_first_words[line] = word
    paragraph_first_words[paragraph] = word
