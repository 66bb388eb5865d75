"""How much two texts or corpora share: five ratios over their words and n-grams, which are easily taken for one another.

Words are those of deduplication (`\\w+` of the lower-cased text), an n-gram is n consecutive words of one document. A and B have |A| and
|B| n-grams, repeats included; an n-gram that is in A i times and in B j times is shared min(i, j) times. Sets, where repeats do not
count, are written a and b.

    of_longer   shared / max(|A|, |B|)    shared words over the words of the longer text; 1 if they hold the same words as often
    of_both     shared / (|A| + |B|)      shared words over the words of both together; at most 1/2, which equal texts reach
    a_in_b      |a and b| / |a|           containment of A in B (Broder 1997): 1 if all of A is in B, however much longer B is
    b_in_a      |a and b| / |b|           containment of B in A
    jaccard     |a and b| / |a or b|      resemblance (Broder 1997); for n > 1 the n-gram Jaccard, for n = 5 what deduplication goes by

`of_longer`, `of_both` and `jaccard` are symmetric. Where the denominator is 0 (no words, fewer than n) a ratio is undefined: None.

Two pairs, worked out. "Uwielbiam pić kawę" (A) and "Uwielbiam pić kawę Starbucks" (B):

    n   |A|  |B|  shared  of_longer  of_both  a_in_b  b_in_a  jaccard
    1    3    4      3        3/4      3/7      1       3/4     3/4
    2    2    3      2        2/3      2/5      1       2/3     2/3
    3    1    2      1        1/2      1/3      1       1/2     1/2

"I love drinking coffee" (A) and "I love drinking Starbucks coffee" (B):

    n   |A|  |B|  shared  of_longer  of_both  a_in_b  b_in_a  jaccard
    1    4    5      4        4/5      4/9      1       4/5     4/5
    2    3    4      2        1/2      2/7      2/3     1/2     2/5
    3    2    3      1        1/3      1/5      1/2     1/3     1/4

So "an overlap of 50 %", said of the first pair, is a ratio of word trigrams (n = 3: of_longer, b_in_a and jaccard agree there); its
ratio of words is 75 % of the longer text and 43 % of both. An added word in the middle (the second pair) costs n-grams on both sides of
it, one at the end only n-grams of the longer text.

`score` in `removed` is `jaccard` of a near-duplicate and the document that it repeats, at n = 5 unless the document level's shingle is set
otherwise (under the rule `components` that of the document most similar to it; null where pairs are not verified). It is 1 for an exact
copy, whose text is equal once normalised, and for what was cut out of a document, which another one holds.

Words are compared by their hashes of 64 bits and counts are exact for these: among 10^9 distinct n-grams about 0.03 are taken for
another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numba import njit

from headrace.shuffle import partition_of
from headrace.text.shingles import ngrams, word_hashes

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

SPOOL_BYTES = 64 << 20  # word hashes of a corpus that are held in memory; more lie in a temporary file
BLOCK_WORDS = 1 << 20  # read from there at a time
PARTITION_NGRAMS = 1 << 25  # of both corpora, sorted at a time: 256 MiB, and as much again while they are gathered


@dataclass(frozen=True)
class Overlap:
    """What A and B share at one n: counts, and the ratios defined above."""

    n: int
    a: int  # n-grams of A, repeats included
    b: int
    shared: int  # each as often as it is in both
    distinct_a: int
    distinct_b: int
    distinct_shared: int

    @property
    def of_longer(self) -> Fraction | None:
        return _ratio(self.shared, max(self.a, self.b))

    @property
    def of_both(self) -> Fraction | None:
        return _ratio(self.shared, self.a + self.b)

    @property
    def a_in_b(self) -> Fraction | None:
        return _ratio(self.distinct_shared, self.distinct_a)

    @property
    def b_in_a(self) -> Fraction | None:
        return _ratio(self.distinct_shared, self.distinct_b)

    @property
    def jaccard(self) -> Fraction | None:
        return _ratio(self.distinct_shared, self.distinct_a + self.distinct_b - self.distinct_shared)


def _ratio(part: int, whole: int) -> Fraction | None:
    return Fraction(part, whole) if whole else None


def overlap(a: str, b: str, n: int) -> Overlap:
    """The overlap of two texts at one n.

    Raises:
        ValueError: n below 1.
    """
    with WordStream() as first, WordStream() as second:
        first.write(*word_hashes([a]))
        second.write(*word_hashes([b]))
        return stream_overlap(first, second, n)


class WordStream:
    """The words of a corpus as hashes in their order, 8 bytes each, and where its documents end."""

    def __init__(self) -> None:
        self.words = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - closed by __exit__
        self._ends: list[Int64s] = [np.zeros(1, np.int64)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def write(self, offsets: Int64s, words: Uint64s) -> None:
        """More documents, as `word_hashes` gives them."""
        self._ends.append(self.words + offsets[1:])
        self.write_part(words)

    def write_part(self, words: Uint64s) -> None:
        """Words of a document that comes in parts; `end_document` follows the last of them."""
        self._file.seek(0, 2)
        self._file.write(words.tobytes())
        self.words += len(words)

    def end_document(self) -> None:
        self._ends.append(np.array([self.words], np.int64))

    def offsets(self) -> Int64s:
        """int64 [documents + 1]: document i has the words offsets[i] to offsets[i + 1]."""
        self._ends = [np.concatenate(self._ends)]
        return self._ends[0]

    def read(self, start: int, stop: int) -> Uint64s:
        """The hashes of the words start to stop."""
        self._file.seek(8 * start)
        content = bytearray(self._file.read(8 * (stop - start)))  # writable, like all words: one type for the compiled functions
        assert len(content) == 8 * (stop - start), f"words {start} to {stop}: {len(content)} bytes"
        return np.frombuffer(content, np.uint64)

    def documents(self, places: Int64s) -> tuple[Int64s, Uint64s]:
        """Words of some documents, laid out as `word_hashes` does."""
        bounds = self.offsets()
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(bounds[places + 1] - bounds[places])])
        parts = [self.read(start, stop) for start, stop in zip(bounds[places].tolist(), bounds[places + 1].tolist())]
        return offsets, np.concatenate([np.empty(0, np.uint64), *parts])

    def count(self, n: int) -> int:
        """n-grams of all documents, repeats included."""
        return int(np.maximum(np.diff(self.offsets()) - (n - 1), 0).sum())

    def ngrams(self, n: int) -> Iterator[Uint64s]:
        """Their hashes, about BLOCK_WORDS at a time."""
        bounds = self.offsets()
        for start in range(0, self.words, BLOCK_WORDS):
            # With the n - 1 words after it a block holds exactly the n-grams that begin in it, but for those a document's end forbids.
            stop = min(start + BLOCK_WORDS + n - 1, self.words)
            low, high = np.searchsorted(bounds, [start, stop])
            inside = bounds[low:high]
            offsets = np.concatenate([[start], inside[inside > start], [stop]]) - start
            yield ngrams(offsets, self.read(start, stop), n)[1]


def stream_overlap(a: WordStream, b: WordStream, n: int) -> Overlap:
    """The overlap of two corpora at one n; in memory are 8 bytes a document, and n-grams of a bounded number.

    The n-grams are gone through a share of all hashes at a time, PARTITION_NGRAMS or fewer.

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"n = {n}: an n-gram has at least one word.")
    partitions = max(1, -(-(a.count(n) + b.count(n)) // PARTITION_NGRAMS))
    distinct_a = distinct_b = distinct_shared = shared = 0
    for partition in range(partitions):
        first, second = (_sorted_part(stream, n, partition, partitions) for stream in (a, b))
        counts = _shared_counts(first, second)
        distinct_a += counts[0]
        distinct_b += counts[1]
        distinct_shared += counts[2]
        shared += counts[3]
    return Overlap(n, a.count(n), b.count(n), shared, distinct_a, distinct_b, distinct_shared)


def _sorted_part(stream: WordStream, n: int, partition: int, partitions: int) -> Uint64s:
    parts = [hashes if partitions == 1 else hashes[partition_of(hashes, partitions) == partition] for hashes in stream.ngrams(n)]
    hashes = np.concatenate([np.empty(0, np.uint64), *parts])
    hashes.sort()
    return hashes


@njit(nogil=True, cache=True)
def _shared_counts(first: Any, second: Any) -> Any:
    """Distinct values of each of two sorted arrays and of both, and the values of both as often as they are in each."""
    i = j = 0
    distinct_first = distinct_second = distinct_both = both = 0
    while i < len(first) or j < len(second):
        value = first[i] if j == len(second) or (i < len(first) and first[i] <= second[j]) else second[j]
        start_i, start_j = i, j
        while i < len(first) and first[i] == value:
            i += 1
        while j < len(second) and second[j] == value:
            j += 1
        distinct_first += i > start_i
        distinct_second += j > start_j
        distinct_both += i > start_i and j > start_j
        both += min(i - start_i, j - start_j)
    return distinct_first, distinct_second, distinct_both, both
