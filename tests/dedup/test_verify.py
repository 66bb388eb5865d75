from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dedup.verify import jaccard, pair_jaccard
from headrace.text.shingles import shingle_sets

SETS = st.sets(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=30)


def members(values):
    return np.array(sorted(values), np.uint64)


@settings(deadline=None)  # the first example waits for the compiler
@given(SETS, SETS)
def test_jaccard_is_exact(first, second):
    union = first | second
    assert jaccard(members(first), members(second)) == (len(first & second) / len(union) if union else 0.0)


@settings(deadline=None)
@given(st.lists(SETS, min_size=1, max_size=5), st.lists(SETS, min_size=1, max_size=5))
def test_pairs_are_scored_each_by_its_own_sets(left, right):
    def laid_out(sets):
        return np.cumsum([0, *map(len, sets)]), np.concatenate([members(found) for found in sets])

    places = np.array([(i, j) for i in range(len(left)) for j in range(len(right))])
    scores = pair_jaccard(*laid_out(left), places[:, 0], *laid_out(right), places[:, 1])
    assert scores.tolist() == [jaccard(members(left[i]), members(right[j])) for i, j in places]


@pytest.mark.parametrize("shared, union, threshold", [(4, 5, 0.8), (3, 4, 0.75), (7, 10, 0.7), (60, 100, 0.6), (9, 10, 0.9)])
def test_a_similarity_at_the_threshold_reaches_it(shared, union, threshold):
    assert jaccard(members(range(shared)), members(range(union))) == threshold


def test_one_replaced_word_costs_five_shingles():
    words = [f"w{number}" for number in range(104)]
    offsets, shingles = shingle_sets([" ".join(words), " ".join([*words[:50], "other", *words[51:]])])
    assert jaccard(shingles[: offsets[1]], shingles[offsets[1] :]) == 95 / 105
