from __future__ import annotations

import itertools
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.text.whitespace import collapsed

SPACES = "".join(chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace())
NEAR = "".join(chr(ord(space) + step) for space in SPACES for step in (-1, 1))  # that share their first bytes
TEXTS = st.text(st.one_of(st.sampled_from(SPACES), st.sampled_from(NEAR + "aé日\U0001f600"), st.characters(exclude_categories=["Cs"])))


@settings(deadline=None)  # the first example waits for the compiler
@given(st.lists(TEXTS, max_size=5))
def test_words_with_one_space_between_them(texts):
    offsets, data = collapsed(texts)
    found = [data[start:stop].tobytes().decode() for start, stop in itertools.pairwise(offsets)]
    assert found == [" ".join(text.split()) for text in texts]


def test_every_white_space_character_is_one():
    offsets, data = collapsed([f"{space}a{space}{space}b{space}" for space in SPACES])
    assert data.tobytes().decode() == "a b" * len(SPACES)
    assert offsets.tolist() == [3 * number for number in range(len(SPACES) + 1)]
