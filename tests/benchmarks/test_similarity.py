"""The exact check that the benchmarks hold both sides against."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from similarity import jaccard, near_pairs, quality, shingle_sets


def test_jaccard_of_known_texts():
    eleven = " ".join("abcdefghijk")  # seven shingles
    one, same, edited, other = shingle_sets([eleven, eleven.upper() + " .", eleven[:-1] + "x", "nothing of this is in there"])
    assert len(one) == 7
    assert jaccard(one, same) == 1
    assert jaccard(one, edited) == 6 / 8
    assert jaccard(one, other) == 0


def test_texts_without_a_shingle_match_their_equals_alone():
    few, same, longer, blank, other_blank = shingle_sets(["a b", "A, b!", "a b c", "...", "!!!"])
    assert jaccard(few, same) == 1
    assert jaccard(few, longer) == jaccard(blank, other_blank) == 0


@pytest.mark.parametrize("least", [0.5, 0.7, 0.9])
def test_pairs_are_those_of_all_comparisons(least):
    draw = random.Random(0)
    texts = []
    for _ in range(40):
        words = [str(draw.randrange(200)) for _ in range(draw.randrange(3, 60))]
        texts.append(" ".join(words))
        for edits in (0, 1, 3):
            edited = list(words)
            for _ in range(edits):
                edited[draw.randrange(len(edited))] = "x"
            texts.append(" ".join(edited))
    sets = shingle_sets(texts)
    every = itertools.combinations(range(len(sets)), 2)
    expected = {pair: similar for pair in every if (similar := jaccard(sets[pair[0]], sets[pair[1]])) >= least}
    pairs, similar = near_pairs(sets, least)
    assert len(expected) > 40
    assert dict(zip(map(tuple, pairs.tolist()), similar.tolist())) == expected


def test_quality_counts_pairs_and_removals():
    pairs, similar = np.array([[0, 1], [2, 3]]), np.array([0.9, 0.75])
    kept = np.array([True, False, True, True, False, False])
    seen = np.array([True, True, True, True, True, False])
    found = quality(kept, seen, pairs, similar, np.array([[0, 1], [1, 2], [2, 3]]), 0.8)
    assert found == {"recall_planted": 2 / 3, "recall_all": 1.0, "precision": 0.5, "removed": 2}
