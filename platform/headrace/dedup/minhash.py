"""MinHash signatures and their bands (Broder 1997, "On the resemblance and containment of documents"; LSH as in Leskovec, Rajaraman
& Ullman, "Mining of Massive Datasets", section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from headrace.shuffle import splitmix64

Uint64s = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class HashFamily:
    """`num_perm` functions h(x) = a x + b mod 2^64 with odd a: bijections of the whole 64-bit field, each ordering it anew.

    The reduction is the machine's own, so nothing is lost by a product that overflows before it is reduced by a prime.
    """

    multipliers: Uint64s  # [num_perm], odd
    offsets: Uint64s  # [num_perm]

    @classmethod
    def draw(cls, num_perm: int, seed: int) -> HashFamily:
        """The functions of a seed: the same on every machine and with every version of NumPy."""
        drawn = _draw(np.uint64(seed), 2 * num_perm)
        return cls(drawn[:num_perm] | np.uint64(1), drawn[num_perm:])


def minhash_signature(shingles: Uint64s, family: HashFamily) -> Uint64s:
    """MinHash signature of one document.

    Args:
        shingles: uint64 [S], hashes of the document's shingles, S >= 1; repeats do not matter.
        family: the hash functions.

    Returns:
        uint64 [num_perm]; the share of equal entries of two signatures estimates
        the Jaccard similarity of their shingle sets without bias.

    Raises:
        ValueError: no shingles; texts under five words are the caller's to leave out.
    """
    if not len(shingles):
        raise ValueError("a document without shingles has no signature; leave it out of near-duplicate search.")
    signature = np.empty(len(family.multipliers), np.uint64)
    _minima(shingles, family.multipliers, family.offsets, signature)
    return signature


def band_keys(signature: Uint64s, bands: int, rows: int) -> Uint64s:
    """uint64 [bands]: a hash of each band's `rows` values and of the band's number, so that bands never meet one another."""
    return _band_keys(signature, bands, rows)


def document_band_keys(offsets: npt.NDArray[np.int64], shingles: Uint64s, family: HashFamily, bands: int, rows: int) -> Uint64s:
    """Band keys of many documents, uint64 [N, bands], from `word_shingles`; zeros for a document without shingles."""
    return _document_band_keys(offsets, shingles, family.multipliers, family.offsets, bands, rows)


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """Probability that two documents of this Jaccard similarity share a band: 1 - (1 - s^rows)^bands."""
    return float(1.0 - (1.0 - similarity**rows) ** bands)


def optimal_param(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows) with bands x rows <= num_perm and the least false positives below the threshold plus false negatives above it.

    Both are integrals of `candidate_probability` over the similarity, weighed equally, as in datasketch and text-dedup.
    """
    cells = 1000  # a side; the integrals are smooth, the midpoint rule is far finer than the gap between two choices
    below = (np.arange(cells) + 0.5) / cells * threshold
    above = threshold + (np.arange(cells) + 0.5) / cells * (1.0 - threshold)

    def error(bands: int, rows: int) -> float:
        false_positives = threshold * float(np.mean(1.0 - (1.0 - below**rows) ** bands))
        false_negatives = (1.0 - threshold) * float(np.mean((1.0 - above**rows) ** bands))
        return false_positives + false_negatives

    choices = [(bands, rows) for bands in range(1, num_perm + 1) for rows in range(1, num_perm // bands + 1)]
    return min(choices, key=lambda choice: error(*choice))


@njit(nogil=True, cache=True)
def _draw(seed: Any, count: int) -> Any:
    state = splitmix64(seed)
    drawn = np.empty(count, np.uint64)
    for number in range(count):
        drawn[number] = splitmix64(state + uint64(number) * uint64(0x9E3779B97F4A7C15))
    return drawn


@njit(nogil=True, cache=True)
def _minima(shingles: Any, multipliers: Any, offsets: Any, signature: Any) -> None:
    # Unsigned throughout: numba tells LLVM that signed products do not overflow, and these are meant to.
    # Four shingles at a time, so that the minima are loaded and stored a quarter as often.
    count = len(shingles)
    for perm in range(len(signature)):
        signature[perm] = multipliers[perm] * shingles[0] + offsets[perm]
    quads = count // 4 * 4
    for start in range(0, quads, 4):
        s0, s1, s2, s3 = shingles[start], shingles[start + 1], shingles[start + 2], shingles[start + 3]
        for perm in range(len(signature)):
            a, b = multipliers[perm], offsets[perm]
            low = min(min(a * s0 + b, a * s1 + b), min(a * s2 + b, a * s3 + b))
            signature[perm] = min(signature[perm], low)
    for last in range(quads, count):
        for perm in range(len(signature)):
            signature[perm] = min(signature[perm], multipliers[perm] * shingles[last] + offsets[perm])


@njit(nogil=True, cache=True)
def _band_keys(signature: Any, bands: int, rows: int) -> Any:
    keys = np.empty(bands, np.uint64)
    for band in range(bands):
        key = splitmix64(uint64(band))
        for row in range(band * rows, (band + 1) * rows):
            key = splitmix64(key ^ signature[row])
        keys[band] = key
    return keys


@njit(nogil=True, cache=True)
def _document_band_keys(offsets: Any, shingles: Any, multipliers: Any, shifts: Any, bands: int, rows: int) -> Any:
    keys = np.zeros((len(offsets) - 1, bands), np.uint64)
    signature = np.empty(len(multipliers), np.uint64)
    for document in range(len(offsets) - 1):
        if offsets[document + 1] > offsets[document]:
            _minima(shingles[offsets[document] : offsets[document + 1]], multipliers, shifts, signature)
            keys[document] = _band_keys(signature, bands, rows)
    return keys
