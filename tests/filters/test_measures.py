import itertools
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.filters import measures
from headrace.filters.measures import COUNTS, MEASURES, N_GRAMS, STOP_WORDS, measure


def one(text, name):
    return measure(pa.array([text], pa.string()), [name])[name][0].as_py()


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("words", "one two -- three4 … 5 (!)", 4),  # symbols are no words
        ("words", "漢字 かな ไทย", 3),
        ("mean_word_chars", "ab abcd, -------", (2 + 5) / 2),
        ("mean_word_chars", "éé 漢漢漢漢", 3),  # code points
        ("hash_word_ratio", "#a ## b c", 3 / 4),
        ("ellipsis_word_ratio", "a... b…… c...... d", (1 + 2 + 2) / 4),  # "......" holds two
        ("ellipsis_word_ratio", "a.. . ..b", 0),
        ("bullet_line_fraction", "- a\n  • b\n\nc -\n-d", 3 / 4),  # the blank line is no line
        ("ellipsis_line_fraction", "a...\nb … \r\nc\n…d", 2 / 4),
        ("alpha_word_fraction", "a1 22 -- é", 2 / 4),
        ("stop_words", "The the THE, (of) “And” that's", 3),  # different ones, whatever case and punctuation
        ("stop_words", "them bet too ofthe WITHIN t.h.e", 0),
        ("stop_words", " ".join(STOP_WORDS), 8),
        ("chars", "é漢𝒳\n", 4),
        ("max_line_chars", "ab\n    abcd\r\n\n", 8),
        ("mean_line_chars", "ab\n    abcd\r\n\n", 10 / 3),
        ("alphanumeric_fraction", "ab1, ;", 3 / 6),
        ("dup_line_fraction", "a\nb\na\n\na", 2 / 4),
        ("dup_line_char_fraction", "a\nb\na\n\na", 2 / 8),  # of all the text's code points, its line feeds too
        ("dup_paragraph_fraction", "a b\n\nc\n\na b", 1 / 3),
        ("dup_paragraph_char_fraction", "a b\n\nc\n\na b", 3 / 11),
        ("top_2_gram_char_fraction", "a b a b", 2 * 3 / 7),
        ("dup_5_gram_char_fraction", "a b c d e a b c d e", 5 / 19),
    ],
)
def test_measures_by_hand(name, text, value):
    assert one(text, name) == (value if name in COUNTS else np.float32(value))


@pytest.mark.parametrize("text", ["", " \r\n\t\u3000", None])
def test_a_text_without_words_measures_nothing_but_its_characters(text):
    found = measure(pa.array([text], pa.string()), list(MEASURES)).to_pylist()[0]
    assert {name for name, value in found.items() if value} <= {"chars", "max_line_chars", "mean_line_chars"}


def reference(text):
    """All measures straight from the definitions, with Python's string methods, regular expressions and counters."""

    def ratio(part, whole):
        return np.float32(part / whole if whole else 0.0)

    def repeated(spans):
        known = Counter()
        again = []
        for span in spans:
            if known[tuple(span.split())]:
                again.append(span.strip())
            known[tuple(span.split())] += 1
        return len(again), sum(map(len, again))

    tokens = text.split()
    words = [token for token in tokens if any(c.isalnum() for c in token)]
    rows = text.split("\n")
    lines = [row.strip() for row in rows if row.strip()]
    paragraphs = ["\n".join(group) for blank, group in itertools.groupby(rows, lambda row: not row.strip()) if not blank]
    physical = [row.removesuffix("\r") for row in (rows[:-1] if rows[-1] == "" else rows)]
    bare = {re.sub(r"^[\W_]+|[\W_]+$", "", token).lower() for token in tokens}
    repeated_lines, repeated_paragraphs = repeated(lines), repeated(paragraphs)
    found = {
        "chars": len(text),
        "words": len(words),
        "stop_words": len(bare & set(STOP_WORDS)),
        "max_line_chars": max(map(len, physical), default=0),
        "mean_word_chars": ratio(sum(map(len, words)), len(words)),
        "hash_word_ratio": ratio(text.count("#"), len(tokens)),
        "ellipsis_word_ratio": ratio(text.count("...") + text.count("…"), len(tokens)),
        "bullet_line_fraction": ratio(sum(line.startswith(("-", "•")) for line in lines), len(lines)),
        "ellipsis_line_fraction": ratio(sum(line.endswith(("...", "…")) for line in lines), len(lines)),
        "alpha_word_fraction": ratio(sum(any(c.isalpha() for c in token) for token in tokens), len(tokens)),
        "mean_line_chars": ratio(sum(map(len, physical)), len(physical)),
        "alphanumeric_fraction": ratio(sum(c.isalnum() for c in text), len(text)),
        "dup_line_fraction": ratio(repeated_lines[0], len(lines)),
        "dup_line_char_fraction": ratio(repeated_lines[1], len(text)),
        "dup_paragraph_fraction": ratio(repeated_paragraphs[0], len(paragraphs)),
        "dup_paragraph_char_fraction": ratio(repeated_paragraphs[1], len(text)),
    }
    for name in N_GRAMS:
        n = int(name.split("_")[1])
        grams = [tokens[i : i + n] for i in range(len(tokens) - n + 1)]
        if name.startswith("top"):
            (top, times), *_ = Counter(map(" ".join, grams)).most_common(1) or [("", 0)]
            found[name] = ratio(len(top) * times, len(text))
        else:
            i, chars, known = 0, 0, []
            while i < len(grams):
                if grams[i] in known:
                    chars += len("".join(grams[i]))
                    i += n
                else:
                    known.append(grams[i])
                    i += 1
            found[name] = ratio(chars, len(text))
    return found


PIECES = [*("a", "The", "of,", "b", "7", "#", "...", "…", "-", "•", "é", "漢", "\u0301", "_"), *("\n\n", "\r\n", "\t", "\u3000", "\x85")]
PIECES += [" "] * 3 + ["\n"] * 2
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=90).map("".join), max_size=4)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
@example(["", " ", "\n", "a\r\n\r\na", "• a…\n- b...\n"])
@example(["a b c d e f g h i j k\n" * 4])
def test_every_measure_is_that_of_the_definitions(texts):
    assert measure(pa.array(texts, pa.string()), list(MEASURES)).to_pylist() == [reference(text) for text in texts]


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 4), st.integers(0, 4), st.integers(1, 60))
def test_slices_chunks_and_pieces_change_nothing(texts, start, length, slice_bytes):
    whole = measure(pa.array(texts, pa.string()), list(MEASURES))
    array = pa.array(texts, pa.string())
    assert measure(array.slice(start, length), list(MEASURES)).equals(whole.slice(start, length))
    chunked = pa.chunked_array([array.slice(0, start), array.slice(start)], pa.string())
    assert measure(chunked, list(MEASURES)).equals(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "_SLICE_BYTES", slice_bytes)
        assert measure(array, list(MEASURES)).equals(whole)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_does_not_depend_on_what_else_is_asked_for(name):
    texts = pa.array(["a b c d e a b c d e\n- the end…\n\nthe end…\n\nthe end…", "", "x # y"])
    assert measure(texts, [name]).equals(measure(texts, list(MEASURES)).select([name]))


def test_columns_are_the_named_ones_in_their_order_and_type():
    assert measure(pa.array(["a"]), ["words", "dup_line_fraction", "chars"]).schema.types == [pa.int64(), pa.float32(), pa.int64()]
    assert measure(pa.chunked_array([], pa.string()), ["words"]).to_pydict() == {"words": []}
    assert measure(pa.array(["a", "b"]), []).num_columns == 0


def test_an_unknown_measure_is_named():
    with pytest.raises(KeyError, match="no measure 'wrods'"):
        measure(pa.array(["a"]), ["words", "wrods"])
