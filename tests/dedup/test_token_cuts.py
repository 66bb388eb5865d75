from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dedup.token_cuts import fewer_words, moved_back


def ints(values):
    return np.array(values, np.int64)


@settings(deadline=None)
@given(data=st.data())
def test_ranges_of_joined_pieces_are_moved_back(data):
    borders = sorted(data.draw(st.lists(st.integers(0, 50), min_size=2, max_size=10, unique=True)))
    start, end = ints(borders[::2])[: len(borders) // 2], ints(borders[1::2])
    joined = [place for low, high in zip(start, end) for place in range(low, high)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(joined)), max_size=6, unique=True)))
    low, high = ints(cuts[::2])[: len(cuts) // 2], ints(cuts[1::2])
    back_start, back_end, kept = moved_back(low, high, np.arange(len(low)), start, end, np.cumsum(end - start) - (end - start))
    found = [(place, name) for first, stop, name in zip(back_start, back_end, kept) for place in range(first, stop)]
    assert found == [(joined[place], name) for name, (first, stop) in enumerate(zip(low, high)) for place in range(first, stop)]
    assert (back_start < back_end).all()


@settings(deadline=None)
@given(
    texts=st.lists(st.text(st.sampled_from("a \u0130\u03a3\u0301_.\u0142"), max_size=60), max_size=4),
    enough=st.integers(1, 5),
)
def test_words_are_counted_as_far_as_need_be(texts, enough):
    assert fewer_words(texts, enough).tolist() == [len(re.findall(r"\w+", text.lower())) < enough for text in texts]


def test_words_beyond_the_beginning_count():
    texts = ["a" * 5000 + " b", "a" * 5000, " " * 5000 + "a b", ""]
    assert fewer_words(texts, 2).tolist() == [False, True, False, True]
