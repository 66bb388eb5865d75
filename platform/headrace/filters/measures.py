"""Measures of texts: what filters compare with their thresholds, each counted once for a whole chain.

Words, lines and paragraphs are those of `text/words.py`, repetition is that of `text/repetition.py`. Differences from datatrove 0.10
(pipeline/filters/gopher_quality_filter.py), whose definitions these are otherwise:

- its words come from a language's tokenizer, which parts punctuation from words: here a sentence has fewer and longer words;
- its symbols are words of listed punctuation marks, here those without letter or digit;
- its lines include blank ones, for repetition an empty one at either end of the text, and are compared with their whitespace;
- its stop words are looked for as they are written, here lower-cased and without the punctuation around them.

Sources: Rae et al. 2021, arXiv:2112.11446, A1.1 (quality) and table A1 (repetition); Chen et al. 2021, arXiv:2107.03374, section 3.1
(lines and alphanumeric characters of code).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from headrace.text import words
from headrace.text.repetition import DUPLICATE_N_GRAMS, TOP_N_GRAMS, n_gram_chars, repeated_spans
from headrace.text.words import Segments, segment

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Rae et al. 2021, A1.1
N_GRAMS = (*(f"top_{n}_gram_char_fraction" for n in TOP_N_GRAMS), *(f"dup_{n}_gram_char_fraction" for n in DUPLICATE_N_GRAMS))
COUNTS = (  # int64
    "chars",  # code points
    "words",  # without symbols
    "stop_words",  # how many of STOP_WORDS occur
    "max_line_chars",  # longest physical line
)
RATIOS = (  # float32
    "mean_word_chars",  # code points of the words without symbols / their number
    "hash_word_ratio",  # "#" / words with symbols
    "ellipsis_word_ratio",  # "..." and "…" / words with symbols
    "bullet_line_fraction",  # lines that begin with "•" or "-"
    "ellipsis_line_fraction",  # lines that end with "..." or "…"
    "alpha_word_fraction",  # words with a letter / words with symbols
    "mean_line_chars",  # of physical lines
    "alphanumeric_fraction",  # letters and digits / code points
    "dup_line_fraction",  # repeats / lines
    "dup_line_char_fraction",  # code points of repeats / code points of the text; so below
    "dup_paragraph_fraction",
    "dup_paragraph_char_fraction",
    *N_GRAMS,
)
MEASURES = {**dict.fromkeys(COUNTS, pa.int64()), **dict.fromkeys(RATIOS, pa.float32())}

_SLICE_BYTES = 4 << 20  # of text segmented at a time: bounds the memory, whatever the caller's batch
_PACKED_STOP_WORDS = np.array([int.from_bytes(word.encode(), "little") for word in STOP_WORDS], np.int64)


def measure(texts: pa.Array | pa.ChunkedArray, names: Sequence[str]) -> pa.Table:
    """The named measures of N texts, one row a text. A null text reads as empty; all measures of an empty text are 0.

    Raises:
        KeyError: a name that is no measure.
        TypeError: `texts` are no strings.
    """
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise KeyError(f"no measure {unknown[0]!r}; there are {', '.join(MEASURES)}.")
    schema = pa.schema([pa.field(name, MEASURES[name], nullable=False) for name in names])
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    parts = [_measured(segment(part), names) for chunk in chunks for part in _slices(chunk)]
    columns = [pa.array(np.concatenate([part[name] for part in parts]) if parts else [], MEASURES[name]) for name in names]
    return pa.table(columns, schema=schema)


def _slices(texts: pa.Array) -> Iterator[pa.Array]:
    """Consecutive pieces of at most `_SLICE_BYTES`, or of one text."""
    _, offsets = words.string_buffers(texts)
    start = 0
    while start < len(texts):
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _SLICE_BYTES, side="right")) - 1)
        yield texts.slice(start, stop - start)
        start = stop


def _measured(s: Segments, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The named measures by name, and any that came along with them."""
    num_words, num_lines, num_paragraphs = (np.diff(offsets) for offsets in (s.word_offsets, s.line_offsets, s.paragraph_offsets))
    counts = np.zeros((8, len(s.offsets) - 1), np.int64)
    _count_marks(s.data, s.offsets, s.word_offsets, s.line_offsets, s.word_chars, s.core_starts, s.core_bytes, s.alphabetic,
                 s.line_starts, s.line_stops, _PACKED_STOP_WORDS, counts)  # fmt: skip
    whole_words, word_chars, stop_words, alphabetic, hashes, ellipses, bullets, trailing = counts
    measured = {
        "chars": s.chars,
        "words": whole_words,
        "stop_words": stop_words,
        "max_line_chars": s.max_line_chars,
        "mean_word_chars": _ratio(word_chars, whole_words),
        "hash_word_ratio": _ratio(hashes, num_words),
        "ellipsis_word_ratio": _ratio(ellipses, num_words),
        "bullet_line_fraction": _ratio(bullets, num_lines),
        "ellipsis_line_fraction": _ratio(trailing, num_lines),
        "alpha_word_fraction": _ratio(alphabetic, num_words),
        "mean_line_chars": _ratio(s.physical_line_chars, s.physical_lines),
        "alphanumeric_fraction": _ratio(s.alphanumerics, s.chars),
    }
    if any(name.startswith("dup_") for name in names):
        repeats, chars = repeated_spans(s.word_hashes, s.line_first_words, s.line_chars, s.line_offsets)
        measured |= {"dup_line_fraction": _ratio(repeats, num_lines), "dup_line_char_fraction": _ratio(chars, s.chars)}
        repeats, chars = repeated_spans(s.word_hashes, s.paragraph_first_words, s.paragraph_chars, s.paragraph_offsets)
        measured |= {"dup_paragraph_fraction": _ratio(repeats, num_paragraphs), "dup_paragraph_char_fraction": _ratio(chars, s.chars)}
    if any(name in N_GRAMS for name in names):
        measured |= {name: _ratio(chars, s.chars) for name, chars in zip(N_GRAMS, n_gram_chars(s).T, strict=True)}
    return measured


def _ratio(part: np.ndarray[Any, Any], whole: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (part / np.maximum(whole, 1)).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _count_marks(
    data: np.ndarray[Any, Any],
    offsets: np.ndarray[Any, Any],
    word_offsets: np.ndarray[Any, Any],
    line_offsets: np.ndarray[Any, Any],
    word_chars: np.ndarray[Any, Any],
    core_starts: np.ndarray[Any, Any],
    core_bytes: np.ndarray[Any, Any],
    alphabetic: np.ndarray[Any, Any],
    line_starts: np.ndarray[Any, Any],
    line_stops: np.ndarray[Any, Any],
    stop_words: np.ndarray[Any, Any],
    counts: np.ndarray[Any, Any],
) -> None:
    """Fill `counts` int64 [8, N]: words without symbols and their code points, distinct stop words, words with a letter, "#",
    ellipses, lines that begin with a bullet, lines that end with an ellipsis."""
    for k in range(len(offsets) - 1):
        found = 0  # bit set of stop words
        for i in range(word_offsets[k], word_offsets[k + 1]):
            length = core_bytes[i]
            if length == 0:
                continue
            counts[0, k] += 1
            counts[1, k] += word_chars[i]
            if alphabetic[i]:
                counts[3, k] += 1
                if length <= 4:
                    packed = np.int64(0)
                    for j in range(length):  # 0x20 lower-cases ASCII letters, and makes no other byte a letter
                        packed |= np.int64(data[core_starts[i] + j] | 0x20) << (8 * j)
                    for j in range(len(stop_words)):
                        if packed == stop_words[j]:
                            found |= 1 << j
        while found:
            found &= found - 1
            counts[2, k] += 1
        hashes = ellipses = dots = 0
        for i in range(offsets[k], offsets[k + 1]):
            hashes += data[i] == 0x23
            dots = dots + 1 if data[i] == 0x2E else 0
            if dots == 3 or (data[i] == 0xA6 and i - 2 >= offsets[k] and _is_ellipsis(data, i - 2)):
                ellipses += 1
                dots = 0
        counts[4, k], counts[5, k] = hashes, ellipses
        for i in range(line_offsets[k], line_offsets[k + 1]):
            begin, stop = line_starts[i], line_stops[i]
            counts[6, k] += data[begin] == 0x2D or (stop - begin > 2 and _is_bullet(data, begin))
            counts[7, k] += stop - begin > 2 and _is_ellipsis(data, stop - 3)


@numba.njit(cache=True, nogil=True)
def _is_ellipsis(data: np.ndarray[Any, Any], i: int) -> bool:
    """Whether "…" (E2 80 A6) or "..." stands at byte `i`."""
    return (data[i] == 0xE2 and data[i + 1] == 0x80 and data[i + 2] == 0xA6) or (data[i] == data[i + 1] == data[i + 2] == 0x2E)


@numba.njit(cache=True, nogil=True)
def _is_bullet(data: np.ndarray[Any, Any], i: int) -> bool:
    """Whether "•" (E2 80 A2) stands at byte `i`."""
    return bool(data[i] == 0xE2 and data[i + 1] == 0x80 and data[i + 2] == 0xA2)
