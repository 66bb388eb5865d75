from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.text.cuts import Cuts, remaining

RANGES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(0, 6)), max_size=12)


def columns(rows):
    return [np.array([row[place] for row in rows], np.int64) for place in range(3)]


@given(RANGES, st.text(min_size=26, max_size=26))
def test_merged_ranges_leave_what_no_range_covers(rows, text):
    doc, start, length = columns(rows)
    cuts = Cuts.merged(doc, start, start + length)
    for number in range(3):
        covered = {place for d, s, n in rows if d == number for place in range(s, s + n)}
        found = cuts.of(number)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(found))
        assert remaining(text, found) == "".join(letter for place, letter in enumerate(text) if place not in covered)


def test_no_ranges():
    cuts = Cuts.merged(*columns([]))
    assert cuts.of(0) == []
    assert remaining("text", []) == "text"


def test_offsets_are_code_points():
    assert remaining("zażółć 🙂 gęślą", [(2, 6), (7, 9)]) == "za gęślą"


def test_a_range_of_another_text_is_refused():
    with pytest.raises(ValueError, match=r"\[1, 9\) in a text of 5 code points"):
        remaining("short", [(1, 2), (4, 9)])
