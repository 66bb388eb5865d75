from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.text.repetition import DUPLICATE_N_GRAMS, TOP_N_GRAMS, n_gram_chars, repeated_spans
from headrace.text.words import segment


def spans(texts, kind):
    s = segment(pa.array(texts, pa.string()))
    tables = {
        "lines": (s.line_first_words, s.line_chars, s.line_offsets),
        "paragraphs": (s.paragraph_first_words, s.paragraph_chars, s.paragraph_offsets),
    }
    repeats, chars = repeated_spans(s.word_hashes, *tables[kind])
    return list(zip(repeats.tolist(), chars.tolist(), strict=True))


def n_grams(text):
    return dict(zip((*TOP_N_GRAMS, *DUPLICATE_N_GRAMS), n_gram_chars(segment(pa.array([text], pa.string())))[0].tolist(), strict=True))


@pytest.mark.parametrize(
    "text, lines, paragraphs",
    [
        ("", (0, 0), (0, 0)),
        ("one\ntwo\none\none", (2, 6), (0, 0)),
        ("one two\n\n  one \t two\r\n", (1, 9), (1, 9)),  # spacing is no part of what is compared, but of the length
        ("one\ntwo\n\none two\n\none\ntwo", (2, 6), (2, 14)),  # paragraphs by their words, however they are broken into lines
        ("one\n\n\n\n\n\ntwo", (0, 0), (0, 0)),  # blank lines are not lines
        ("one two\ntwo one\nonetwo", (0, 0), (0, 0)),
        ("é漢\né漢", (1, 2), (0, 0)),  # code points, not bytes
    ],
)
def test_repeated_lines_and_paragraphs_by_hand(text, lines, paragraphs):
    assert spans([text], "lines") == [lines]
    assert spans([text], "paragraphs") == [paragraphs]


def test_texts_do_not_see_each_other():
    assert spans(["same line", "same line", "same line\nsame line"], "lines") == [(0, 0), (0, 0), (1, 9)]


def test_top_n_gram_by_hand():
    found = n_grams("a b c a b d a b")
    assert found[2] == 3 * len("a b")
    assert found[3] == 1 * len("a b c")  # three words occur once each: the first of them, and it counts
    assert n_grams("x x x x")[2] == 3 * len("x x")  # overlapping occurrences count, beyond the text's length
    assert n_grams("bb a a bb")[2] == len("bb a")


def test_duplicate_n_grams_by_hand():
    phrase = "one two three four five six"  # 22 letters; repeated once: its first five words, then a word is left
    assert n_grams(f"{phrase} {phrase}")[5] == len("onetwothreefourfive")
    assert n_grams(f"{phrase} {phrase}")[6] == len("onetwothreefourfivesix")
    assert n_grams(f"{phrase} {phrase}")[7] == 0
    assert n_grams(" ".join(["w"] * 11))[5] == 10  # after the first, "w w w w w" at 1 and at 6
    assert n_grams(" ".join(["w"] * 11))[10] == 10


@pytest.mark.parametrize("words", range(12))
def test_a_text_of_fewer_words_has_no_n_gram(words):
    found = n_grams(" ".join(["w"] * words))
    assert [n for n, chars in found.items() if chars] == [n for n in found if n <= words - (n >= 5)]


def reference(text):
    """Straight from the definitions, with lists and counters."""
    words = text.split()
    grams = {n: [tuple(words[i : i + n]) for i in range(len(words) - n + 1)] for n in (*TOP_N_GRAMS, *DUPLICATE_N_GRAMS)}
    found = {}
    for n in TOP_N_GRAMS:
        counted = Counter(grams[n])
        most = max(counted.values(), default=0)
        top = next((gram for gram in grams[n] if counted[gram] == most), ())
        found[n] = most * len(" ".join(top))
    for n in DUPLICATE_N_GRAMS:
        known, found[n], wait = set(), 0, 0
        for gram in grams[n]:
            if wait:
                wait -= 1
            elif gram in known:
                found[n] += sum(map(len, gram))
                wait = n - 1
            else:
                known.add(gram)
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "ab", "漢字", "Ω,", "…"]), max_size=80).map(" ".join))
@example("a b a b b a")
@example(" ".join("abcdefghij" * 3))
def test_n_grams_are_those_of_the_definitions(text):
    assert n_grams(text) == reference(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "a b", " a  b", "漢", "", " ", "b\r"]), max_size=12).map("\n".join), max_size=4))
def test_repeated_lines_are_those_of_the_definition(texts):
    def repeats(text):
        lines = [line for line in text.split("\n") if line.strip()]
        again = [line for i, line in enumerate(lines) if line.split() in [earlier.split() for earlier in lines[:i]]]
        return len(again), sum(len(line.strip()) for line in again)

    assert spans(texts, "lines") == [repeats(text) for text in texts]


def test_a_long_text_of_few_words_fills_no_table():
    text = " ".join(str(i % 97) for i in range(20_000))
    assert n_grams(text) == reference(text)
