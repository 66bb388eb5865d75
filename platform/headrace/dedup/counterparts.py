"""Two corpora against each other: the overlap of the whole, and the documents of the one that have a counterpart in the other.

A document of B has an exact counterpart in A if their normalised texts have one hash (`exact`), else a near one if the Jaccard similarity
of their five-word shingle sets reaches the threshold. As in deduplication the near ones are sought among documents that share a band of
MinHash values, and verified; the bands are chosen so that a pair at the threshold is missed once in 10,000 times. Of a bucket's
documents those of A come first and the first BUCKET_LEADERS are paired, so a text that A repeats more often than that is met in these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.dedup import exact
from headrace.dedup.candidates import BANDS, bucket_pairs
from headrace.dedup.minhash import HashFamily, candidate_probability, document_band_keys
from headrace.dedup.overlap import Overlap, WordStream, stream_overlap
from headrace.dedup.signatures import SEED
from headrace.dedup.verify import pair_jaccard
from headrace.text.shingles import WORDS_PER_SHINGLE, distinct_sets, ngrams, word_hashes

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

BATCH_CHARS = 4 << 20
CHUNK_WORDS = 1 << 23  # of the documents whose pairs are verified at a time
MISSED = 1e-4  # probability that a pair at the threshold shares no band
MAX_ROWS = 8
TENTHS = 10


@dataclass(frozen=True)
class Counterparts:
    """Documents of B that have a counterpart in A."""

    documents_a: int
    documents_b: int
    threshold: float
    exact: int
    near: int
    # Of these exact and near ones: how many have at least k tenths of their shingles in the most similar document of A, and not k + 1;
    # k = 0 to 10. An exact copy has all.
    containment: tuple[int, ...]


@dataclass(frozen=True)
class CorpusOverlap:
    """The n-grams of two corpora, no n-gram crossing a document's end, and their documents."""

    ngrams: tuple[Overlap, ...]
    documents: Counterparts


def corpus_overlap(
    a: Iterable[str], b: Iterable[str], ns: Sequence[int] = (1, 2, 3, WORDS_PER_SHINGLE), threshold: float = 0.75
) -> CorpusOverlap:
    """The overlap of two corpora, whose texts are gone through once.

    Some 220 bytes a document are in memory at the default threshold; words, 8 bytes each, lie in a temporary file.

    Args:
        ns: which n-grams are compared.
        threshold: Jaccard similarity from which two documents are counterparts, above 0, at most 1.

    Raises:
        ValueError: an n below 1, or a threshold out of its range.
    """
    with SignedCorpus(a, threshold) as first, SignedCorpus(b, threshold) as second:
        return CorpusOverlap(tuple(stream_overlap(first.words, second.words, n) for n in ns), counterparts(first, second))


def banding(threshold: float) -> tuple[int, int]:
    """(bands, rows) under which a pair at the threshold is a candidate with a probability of at least 1 - MISSED.

    Rows are as many as leave the band of such a pair equal in about a third of all cases, so that dissimilar pairs seldom meet.

    Raises:
        ValueError: not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold = {threshold}: a Jaccard similarity above 0, at most 1, is asked for.")
    rows = MAX_ROWS if threshold == 1 else min(MAX_ROWS, max(1, round(math.log(0.3) / math.log(threshold))))
    bands = 1
    while candidate_probability(threshold, bands, rows) < 1 - MISSED:
        bands += 1
    return bands, rows


class SignedCorpus:
    """The documents of a corpus without their texts: words, exact hashes, band keys."""

    def __init__(self, texts: Iterable[str], threshold: float) -> None:
        self.threshold = threshold
        self.words = WordStream()
        shape = banding(threshold)
        family = HashFamily.draw(shape[0] * shape[1], SEED)
        hashes, keys = [np.empty((0, 2), np.uint64)], [np.empty((0, shape[0]), np.uint64)]
        for batch in _batches(texts):
            offsets, words = word_hashes(batch)
            self.words.write(offsets, words)
            hashes.append(np.stack(exact.content_hashes(batch), axis=1))
            keys.append(document_band_keys(*ngrams(offsets, words, WORDS_PER_SHINGLE), family, *shape))
        self.hashes = np.concatenate(hashes)  # [N, 2]: high and low half
        self.keys = np.concatenate(keys)  # [N, bands]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.words.__exit__(kind, error, trace)

    def __len__(self) -> int:
        return len(self.hashes)

    def shingles(self) -> Int64s:
        """Of each document, repeats included: int64 [N]."""
        return np.maximum(np.diff(self.words.offsets()) - (WORDS_PER_SHINGLE - 1), 0)

    def shingle_sets(self, places: Int64s) -> tuple[Int64s, Uint64s]:
        """Those of some documents, as `shingles.shingle_sets` gives them."""
        return distinct_sets(*ngrams(*self.words.documents(places), WORDS_PER_SHINGLE))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    chars = 0
    for text in texts:
        batch.append(text)
        chars += len(text) + 1
        if chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def counterparts(a: SignedCorpus, b: SignedCorpus) -> Counterparts:
    """Which documents of B are in A, exactly or nearly; both signed for one threshold."""
    copies = _copies(a, b)
    worse, better = _candidates(a, b, ~copies)
    jaccard, containment = _verified(a, b, worse, better)
    near = jaccard >= a.threshold
    # The most similar document of A for each of B; of equals the first in A.
    order = np.lexsort((better[near], -jaccard[near], worse[near]))
    matched, first = np.unique(worse[near][order], return_index=True)
    tenths = np.floor(containment[near][order][first] * TENTHS + 1e-9).astype(np.int64)
    counts = np.bincount(tenths, minlength=TENTHS + 1)
    exactly = int(copies.sum())
    counts[TENTHS] += exactly
    return Counterparts(len(a), len(b), a.threshold, exactly, len(matched), tuple(counts.tolist()))


def _copies(a: SignedCorpus, b: SignedCorpus) -> npt.NDArray[np.bool_]:
    """bool [len(b)]: whether A holds the same normalised text. The rows of deduplication, A's documents preferred to B's."""
    high, low = np.concatenate([a.hashes, b.hashes]).T
    doc = np.arange(len(high))
    preference = (doc >= len(a)).astype(np.int32)
    order = np.lexsort((doc, preference, low, high))
    rows = [column[order] for column in (high, low, preference, doc)]
    removed = exact.removed_copies(pa.table([*map(pa.array, rows)], schema=exact.EXACT))
    copy, kept = removed["doc"].to_numpy(), removed["kept"].to_numpy()
    found = np.zeros(len(b), bool)
    found[copy[(copy >= len(a)) & (kept < len(a))] - len(a)] = True
    return found


def _candidates(a: SignedCorpus, b: SignedCorpus, wanted: npt.NDArray[np.bool_]) -> tuple[Int64s, Int64s]:
    """Pairs that share a band: places of the `wanted` documents in B and of the others in A, sorted, each pair once."""
    ours, theirs = np.flatnonzero(a.shingles()), np.flatnonzero(wanted & (b.shingles() > 0))
    pairs = [np.empty(0, np.int64)]
    for band in range(a.keys.shape[1]):  # a band's keys are its own, so that one band at a time is in memory
        key_a, key_b = a.keys[ours, band], b.keys[theirs, band]
        in_a, in_b = np.isin(key_a, key_b), np.isin(key_b, key_a)
        key = np.concatenate([key_a[in_a], key_b[in_b]])
        doc = np.concatenate([ours[in_a], len(a) + theirs[in_b]])
        order = np.lexsort((doc, key))
        rows = [column[order] for column in (key, (doc >= len(a)).astype(np.int32), doc)]
        met = bucket_pairs(pa.table([*map(pa.array, rows)], schema=BANDS))
        worse, better = met["doc"].to_numpy(), met["better"].to_numpy()
        across = (worse >= len(a)) & (better < len(a))
        pairs.append((worse[across] - len(a)) * len(a) + better[across])
    distinct = np.unique(np.concatenate(pairs))
    return distinct // max(1, len(a)), distinct % max(1, len(a))


def _verified(a: SignedCorpus, b: SignedCorpus, in_b: Int64s, in_a: Int64s) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of pairs of documents, the Jaccard similarity of their shingle sets and the containment of B's in A's."""
    jaccard, containment = np.zeros(len(in_b)), np.zeros(len(in_b))
    held = np.cumsum(a.shingles()[in_a] + b.shingles()[in_b])
    start = 0
    while start < len(in_b):
        before = held[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(held, before + CHUNK_WORDS, side="right")))
        ours, left = np.unique(in_a[start:stop], return_inverse=True)
        theirs, right = np.unique(in_b[start:stop], return_inverse=True)
        sets_a, sets_b = a.shingle_sets(ours), b.shingle_sets(theirs)
        score = pair_jaccard(*sets_a, left, *sets_b, right)
        size_a, size_b = np.diff(sets_a[0])[left], np.diff(sets_b[0])[right]
        jaccard[start:stop] = score
        # shared / (a + b - shared) = score, for integers far below 2^52
        containment[start:stop] = np.rint(score * (size_a + size_b) / (1 + score)) / size_b
        start = stop
    return jaccard, containment
