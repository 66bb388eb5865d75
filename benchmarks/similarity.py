"""Which documents truly repeat which: an exact check that shares no code with what it checks.

Words are `re.findall(r"\\w+", text.lower())`, two documents are compared by the Jaccard similarity of their sets of five-word shingles.
All pairs above a similarity are found by prefix filtering (Bayardo, Ma & Srikant 2007, "Scaling up all pairs similarity search"): with the
shingles of every document in one order, rarest first, sets that similar share one of the first few of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

WORDS = re.compile(r"\w+")
SHINGLE = 5

Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


def shingle_sets(texts: Iterable[str]) -> list[Uint64s]:
    """The set of shingles of each text, sorted; a text of fewer than five words has one for all of them, so that only its equals match.

    Words are numbered as they come, so that none are confused; a shingle is a 64-bit mixture of five numbers.
    """
    numbers: dict[str, int] = {}
    sets = []
    for text in texts:
        words = WORDS.findall(text.lower()) or [text]
        codes = np.fromiter((numbers.setdefault(word, len(numbers) + 1) for word in words), np.uint64, len(words))
        if len(codes) < SHINGLE:
            codes = np.concatenate([codes, np.zeros(SHINGLE - len(codes), np.uint64)])
        count = len(codes) - SHINGLE + 1
        mixed = np.zeros(count, np.uint64)
        for place in range(SHINGLE):
            mixed = (mixed ^ codes[place : place + count]) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        sets.append(np.unique(mixed))
    return sets


def near_pairs(sets: Sequence[Uint64s], least: float) -> tuple[Int64s, npt.NDArray[np.float64]]:
    """All pairs of sets whose Jaccard similarity is at least `least`: int64 [P, 2], the smaller place first, and float64 [P]."""
    sizes = np.array([len(each) for each in sets])
    owner = np.repeat(np.arange(len(sets)), sizes)
    _, inverse, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    shared = counts[inverse] > 1  # the others come first in a document's order and lead nowhere
    owner, inverse = owner[shared], inverse[shared]
    order = np.lexsort((inverse, counts[inverse], owner))  # each document's shingles, rarest first, ties alike everywhere
    owner, inverse = owner[order], inverse[order]
    held = np.bincount(owner, minlength=len(sets))
    rank = np.arange(len(owner)) - (np.cumsum(held) - held)[owner] + (sizes - held)[owner]
    prefix = sizes - np.ceil(least * sizes - 1e-9).astype(np.int64) + 1
    chosen = rank < prefix[owner]
    owner, inverse = owner[chosen], inverse[chosen]
    order = np.lexsort((owner, sizes[owner], inverse))
    owner, inverse = owner[order], inverse[order]
    found = [np.empty(0, np.int64)]
    here = np.arange(len(owner))
    distance = 1
    while len(here):  # within a shingle's documents, smallest first: each with its 1st, 2nd, ... follower while that is not too large
        here = here[here + distance < len(owner)]
        one, other = owner[here], owner[here + distance]
        alike = (inverse[here] == inverse[here + distance]) & (sizes[one] >= least * sizes[other] - 1e-9)
        here = here[alike]
        found.append(np.minimum(one, other)[alike] << 32 | np.maximum(one, other)[alike])
        if distance % 64 == 0:
            found = [np.unique(np.concatenate(found))]
        distance += 1
    keys = np.unique(np.concatenate(found))
    pairs = np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1)
    similar = np.array([jaccard(sets[one], sets[other]) for one, other in pairs.tolist()])
    near = similar >= least if len(similar) else np.empty(0, bool)
    return pairs[near], similar[near]


def jaccard(one: Uint64s, other: Uint64s) -> float:
    """|A and B| / |A or B| of two sets given as sorted distinct values."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)


def quality(
    kept: npt.NDArray[np.bool_], seen: npt.NDArray[np.bool_], pairs: Int64s, similar: npt.NDArray[Any], known: Int64s, least: float
) -> dict[str, float]:
    """How well a choice of documents did.

    Args:
        kept, seen: bool [N], the documents that stay, and those that were looked at at all.
        pairs, similar: the documents that truly repeat each other, from `near_pairs`.
        known: int64 [K, 2], pairs that were planted to be found.
        least: a pair of at least this similarity is to be found.

    Returns:
        recall_planted and recall_all, of the planted pairs and of all pairs of at least `least` those of which not both stay (1 where
        there are none); precision, of the documents removed those with a partner among `pairs`; removed, their number.
    """
    repeats = np.zeros(len(kept), bool)
    repeats[pairs.reshape(-1)] = True
    removed = seen & ~kept
    wanted = pairs[similar >= least]

    def recall(wanted: Int64s) -> float:
        looked_at = wanted[seen[wanted].all(axis=1)]
        return float((~kept[looked_at]).any(axis=1).mean()) if len(looked_at) else 1.0

    precision = float(repeats[removed].mean()) if removed.any() else 1.0
    return {"recall_planted": recall(known), "recall_all": recall(wanted), "precision": precision, "removed": int(removed.sum())}
