from __future__ import annotations

import dataclasses
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.decontaminate import match
from headrace.decontaminate.index import build_index, load_index
from headrace.decontaminate.items import make_item
from headrace.decontaminate.match import find
from headrace.text.folding import folded_words

SENTENCE = (
    "Well, my neighbour -- an old sailor -- says it's so slow; he likes tea, bread, cheese and jam. So do I! Maybe we "
    "should eat less, he says, but it's hard: he likes tea, bread, cheese and jam too much."
)


def found(index, texts):
    finds, _ = find(index, pa.array(texts, pa.string()))
    return [
        (text, index.phrase(gram), start, end)
        for text, gram, start, end in zip(finds.text.tolist(), finds.gram.tolist(), finds.start.tolist(), finds.end.tolist())
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 13])
def test_n_grams_of_words_and_their_places_are_those_of_sliding_windows(index_of, n):
    index, _ = index_of([SENTENCE], n)
    tokens = [m for m in re.finditer(r"\S+", SENTENCE) if m.group() != "--"]  # what is punctuation only is no word
    windows = [(folded_words(SENTENCE[a.start() : b.end()]), a.start(), b.end()) for a, b in zip(tokens, tokens[n - 1 :])]
    assert found(index, [SENTENCE]) == [(0, " ".join(words), start, end) for words, start, end in windows]


def test_a_word_reaches_from_white_space_to_white_space(index_of):
    index, _ = index_of(["alpha beta gamma"], 3)
    text = 'x ("Alpha") -- beta, *GAMMA*!! y'
    ((_, phrase, start, end),) = found(index, [text])
    assert phrase == "alpha beta gamma"
    assert text[start:end] == '("Alpha") -- beta, *GAMMA*!!'


@pytest.mark.parametrize(
    "text",
    [
        "Caf\u00e9 au lait, isn't it? Yes: it's 5 $ in the U.S. now",
        "CAFE\u0301 AU LAIT ISN\u2019T IT YES ITS 5 IN THE US NOW",
        "cafe\u0301\nau\nlait,\nisn't\nit?\r\nYes:\tit's\u00a05\n$\nin the\n\nU.S. now",
        "> caf\u00e9 au lait isnt it?\n> yes its 5 in the us\n> now",
        "ｃａｆé au lait; isn't it? yes, it's ５ in the U.S. now",
        "cafe au lait isnt it yes its 5 in the us now",
    ],
)
def test_case_punctuation_line_breaks_and_unicode_form_make_no_difference(index_of, text):
    index, _ = index_of(["Caf\u00e9 au lait, isn't it? Yes: it's 5 $ in the U.S. now"], 12)
    assert len(found(index, [f"Before it: {text} and after it."])) == 1


@pytest.mark.parametrize(
    "text",
    [
        "cafe au lait isnt it yes its 6 in the us now",
        "cafe au lait is nt it yes its 5 in the us now",
        "cafe au lait isnt it it yes its 5 in the us now",
        "cafe au laitisnt it yes its 5 in the us now",
    ],
)
def test_other_words_make_a_difference(index_of, text):
    index, _ = index_of(["Caf\u00e9 au lait, isn't it? Yes: it's 5 $ in the U.S. now"], 12)
    assert found(index, [text]) == []


def test_n_grams_do_not_run_from_one_document_into_the_next(index_of):
    index, _ = index_of(["one two three four"], 4)
    assert found(index, ["one two", "three four", "", "one two three", "four one two three four"]) == [(4, "one two three four", 5, 23)]


def test_chinese_and_japanese_are_matched_by_characters(index_of):
    index, _ = index_of(["下列哪一项是光合作用的主要产物？"], 13)
    assert len(found(index, ["题目：下列哪一项是\n光合作用的主要产物 ABC"])) == 3
    assert found(index, ["下列哪一项是呼吸作用的主要产物"]) == []


def test_short_items_of_eight_words_are_found_anywhere_shorter_ones_as_a_line(index_of):
    eight = "the sailors rode the breeze clear of rocks"
    index, _ = index_of([eight, "John ate the cake", "too short"], 13)
    prose = "He wrote: the sailors rode the breeze\nclear of rocks. Then John ate the cake. Too short!\n John ate the cake!\r\nToo short"
    assert [(phrase, prose[start:end]) for _, phrase, start, end in found(index, [prose])] == [
        (eight, "the sailors rode the breeze\nclear of rocks."),
        ("john ate the cake", "John ate the cake!"),
    ]
    assert [start for _, _, start, _ in found(index, ["John ate the cake"])] == [0]
    assert found(index, ["John ate the cake\u00a0today", "and John ate\nthe cake"]) == []


def test_of_short_items_that_begin_alike_all_are_found(index_of):
    longest = "a b c d e f g h i j k"
    index, _ = index_of([longest[:size] for size in (15, 17, 19)], 13)
    assert [phrase for _, phrase, _, _ in found(index, [f"x {longest} y"])] == [longest[:size] for size in (15, 17, 19)]
    assert [phrase for _, phrase, _, _ in found(index, ["a b c d e f g h i"])] == [longest[:15], longest[:17]]


def test_equal_hashes_are_no_find(index_of):
    index, _ = index_of(["alpha beta gamma"], 3)
    other, _ = index_of(["delta beta gamma"], 3)
    collision = dataclasses.replace(index, hashes=other.hashes, filter=np.full_like(other.filter, np.uint64(2**64 - 1)))
    assert found(collision, ["delta beta gamma"]) == []
    assert len(found(dataclasses.replace(other, filter=collision.filter), ["delta beta gamma"])) == 1


def test_more_finds_than_there_was_room_for(index_of, monkeypatch):
    monkeypatch.setattr(match, "CAPACITY", 3)
    index, _ = index_of(["a b a b a b"], 2)
    assert [start for _, _, start, _ in found(index, ["a b " * 50])] == list(range(0, 198, 2))


def test_an_empty_index_and_empty_texts(tmp_path):
    build_index([], 13, tmp_path)
    assert found(load_index(tmp_path, 13), ["some words", ""]) == []


words = st.sampled_from(["a", "B", "c,", "5", "(", "é", "don't", "中", "3.", "\n", "\n\n"])
prose = st.lists(words, max_size=40).map(" ".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(prose, min_size=1, max_size=6), texts=st.lists(prose, min_size=1, max_size=6), n=st.sampled_from([2, 3, 5, 10, 13]))
def test_finds_are_those_of_sets_of_word_n_grams(tmp_path_factory, items, texts, n):
    """The definition said again with Python's sets: words, windows, lines, no kernel."""
    folder = tmp_path_factory.mktemp("index")
    build_index([make_item("set", str(row), row, [[text]], n) for row, text in enumerate(items)], n, folder)
    long, anywhere, lines = set(), set(), set()
    for text in items:
        of = tuple(folded_words(text))
        for start in range(len(of) - n + 1):
            if any(c.isalpha() for word in of[start : start + n] for c in word):
                long.add(of[start : start + n])
        if len(of) < n and sum(any(c.isalpha() for c in word) for word in of) >= 3:
            (anywhere if len(of) >= 8 else lines).add(of)
    expected = []
    for row, text in enumerate(texts):
        of = tuple(folded_words(text))
        for start in range(len(of)):
            for kind in (long, anywhere):
                expected += [(row, " ".join(each)) for each in kind if of[start : start + len(each)] == each]
        expected += [(row, " ".join(line)) for each in text.split("\n") if (line := tuple(folded_words(each))) in lines]
    assert sorted((row, phrase) for row, phrase, _, _ in found(load_index(folder, n), texts)) == sorted(expected)
