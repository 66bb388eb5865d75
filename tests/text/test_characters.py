from __future__ import annotations

import itertools
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.text.characters import character_hashes
from headrace.text.shingles import ngrams

TEXTS = st.text(
    st.one_of(st.sampled_from("İΣς aB\t\n\x1c\u00a0\u3000\u2028日\U0001f600"), st.characters(exclude_categories=["Cs"])), max_size=40
)


def split(offsets, values):
    return [values[start:stop].tolist() for start, stop in itertools.pairwise(offsets)]


def characters_of(text):
    return list(" ".join(text.lower().split()))


@settings(deadline=None)  # the first example waits for the compiler
@given(st.lists(TEXTS, max_size=5))
def test_characters_are_those_of_the_lower_cased_text_with_single_spaces(texts):
    wanted = [characters_of(text) for text in texts]
    distinct = sorted({c for found in wanted for c in found} - {" "})
    known = {c: values[0] for c, values in zip(distinct, split(*character_hashes(distinct)))}
    ((_, known[" "], _),) = split(*character_hashes(["a b"]))
    assert split(*character_hashes(texts)) == [[known[c] for c in found] for found in wanted]


def test_every_character_has_a_hash_of_its_own():
    letters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    letters = [letter for letter in letters if letter.lower() == letter and not letter.isspace()]
    offsets, hashes = character_hashes(letters)
    assert np.array_equal(np.diff(offsets), np.ones(len(letters)))
    assert len(np.unique(hashes)) == len(letters)


def test_n_grams_of_characters_are_windows():
    text = "  To be,\nor  not TO BE  "
    shown = " ".join(text.lower().split())
    windows = [shown[start : start + 5] for start in range(len(shown) - 4)]
    (found,) = split(*ngrams(*character_hashes([text]), 5))
    assert [found.index(value) for value in found] == [windows.index(window) for window in windows]
    assert found[0] == found[-1]  # "to be" twice
