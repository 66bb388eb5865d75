from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from headrace.dedup.token_offsets import TokenOffsets
from headrace.text.encoding import Spelling, encode_texts
from headrace.tokens.tokenizer import train_bpe

TEXT = st.text(st.sampled_from("ab ę\u0142\u4e00😀\U0001f9d1\u200d"), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def tokenizer():
    """Byte-level, with tokens of parts of code points, of one and of several."""
    return train_bpe(["ab ab ęł ęł 一一 😀 \U0001f9d1\u200d" * 3], 290)


def bytes_of_tokens(tokenizer, text):
    """The code points that each token touches, by Python's own encoding."""
    spelling = Spelling.of(tokenizer)
    place_of = [place for place, character in enumerate(text) for _ in character.encode()]
    touched, position = [], 0
    for number in tokenizer.encode(text).ids:
        size = int(spelling.offsets[number + 1] - spelling.offsets[number])
        touched.append(place_of[position : position + size])
        position += size
    return touched


def spelled(tokenizer, text):
    return TokenOffsets.spelled(encode_texts(tokenizer, [text])[0], Spelling.of(tokenizer))


@settings(deadline=None)
@given(text=TEXT)
def test_ids_tell_which_code_points_a_token_touches(tokenizer, text):
    offsets, touched = spelled(tokenizer, text), bytes_of_tokens(tokenizer, text)
    assert offsets.begins.tolist() == [places[0] for places in touched]
    assert offsets.ends.tolist() == [places[-1] + 1 for places in touched]


@settings(deadline=None)
@given(text=TEXT)
def test_the_library_says_the_same(tokenizer, text):
    looked_up, offsets = TokenOffsets.looked_up(tokenizer, text), spelled(tokenizer, text)
    assert looked_up.begins.tolist() == offsets.begins.tolist()
    assert looked_up.ends.tolist() == offsets.ends.tolist()


def ranges(data, size):
    """Ranges below `size`, in order and apart, some of which touch."""
    borders = sorted(data.draw(st.lists(st.integers(0, size), max_size=6, unique=True)))
    chosen = data.draw(st.lists(st.booleans(), min_size=len(borders), max_size=len(borders)))
    found = [(low, high) for low, high, some in zip(borders, borders[1:], chosen) if some]
    return np.array(found, np.int64).reshape(-1, 2).T


@settings(max_examples=200, deadline=None)
@given(text=TEXT, data=st.data())
def test_what_is_cut_is_what_the_tokens_hold_whole(tokenizer, text, data):
    offsets, touched = spelled(tokenizer, text), bytes_of_tokens(tokenizer, text)
    start, end = ranges(data, len(touched))
    low, high = offsets.inside(start, end)
    gone = {token for first, stop in zip(start, end) for token in range(first, stop)}
    stays = {place for token, places in enumerate(touched) if token not in gone for place in places}
    assert {place for first, stop in zip(low, high) for place in range(first, stop)} == set(range(len(text))) - stays
    assert all(before <= after for before, after in zip(high[:-1], low[1:]) if before > 0)


@settings(max_examples=200, deadline=None)
@given(text=TEXT, data=st.data())
def test_a_token_is_touched_if_one_of_its_bytes_is(tokenizer, text, data):
    offsets, touched = spelled(tokenizer, text), bytes_of_tokens(tokenizer, text)
    start, end = ranges(data, len(text))
    low, high = offsets.touched(start, end)
    cut = {place for first, stop in zip(start, end) for place in range(first, stop)}
    expected = {token for token, places in enumerate(touched) if cut & set(places)}
    assert {token for first, stop in zip(low, high) for token in range(first, stop)} == expected


def test_a_code_point_between_two_cuts_is_cut():
    offsets = TokenOffsets(np.array([0, 1, 1, 2]), np.array([1, 2, 2, 3]))  # a, the two halves of b, c
    assert [each.tolist() for each in offsets.inside(np.array([0, 2]), np.array([2, 4]))] == [[0, 1], [1, 3]]
    assert [each.tolist() for each in offsets.inside(np.array([0]), np.array([2]))] == [[0], [1]]
    assert [each.tolist() for each in offsets.inside(np.array([2]), np.array([4]))] == [[2], [3]]
    low, high = offsets.inside(np.array([1, 2]), np.array([2, 3]))
    assert sorted(zip(low.tolist(), high.tolist())) == [(1, 1), (1, 2)]


def test_text_that_the_tokenizer_leaves_out_is_touched_by_no_token():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.Lowercase()
    offsets = TokenOffsets.looked_up(tokenizer, "A  b zz A")
    assert [offsets.begins.tolist(), offsets.ends.tolist()] == [[0, 3, 5, 8], [1, 4, 7, 9]]
    assert [each.tolist() for each in offsets.inside(np.array([1]), np.array([3]))] == [[3], [7]]
    assert [each.tolist() for each in offsets.touched(np.array([1, 4]), np.array([3, 6]))] == [[1, 2], [1, 3]]
    assert not len(TokenOffsets.looked_up(tokenizer, " ").begins)
