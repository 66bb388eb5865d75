from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dedup.exact import EXACT, EXACT_REMOVED, content_hashes, normalised, removed_copies


def hashes(texts):
    high, low = content_hashes(texts)
    return [a << 64 | b for a, b in zip(high.tolist(), low.tolist())]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", ""),
        (" \n\t ", ""),
        ("  a\r\n\u00a0b\u3000\u2028c ", "a b c"),
        ("Caf\u0065\u0301", "Caf\u00e9"),  # combining accent and composed letter
        ("\uac00", "\uac00"),
        ("\u1100\u1161", "\uac00"),  # a Hangul syllable from its jamo
        ("\ufb01 2\u00b2", "\ufb01 2\u00b2"),  # compatibility forms stay: NFC, not NFKC
        ("Case, and punctuation!", "Case, and punctuation!"),
    ],
)
def test_whitespace_1(text, expected):
    assert normalised(text) == expected
    assert hashes([text]) == [xxhash.xxh3_128_intdigest(expected.encode())]


@settings(deadline=None)  # the first example waits for the compiler
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_a_hash_is_that_of_the_normalised_text(texts):
    once = [normalised(text) for text in texts]
    assert hashes(texts) == hashes(once) == [xxhash.xxh3_128_intdigest(text.encode()) for text in once]


def test_content_hash_is_xxh3_128():
    high, low = content_hashes(["", "a  b"])
    assert (int(high[0]), int(low[0])) == (0x99AA06D3014798D8, 0x6001C324468D497F)  # XXH3_128bits of no bytes, seed 0
    assert high.dtype == low.dtype == np.uint64


@pytest.mark.parametrize("one, other", [("Text", "text"), ("a b", "a, b"), ("a b", "ab"), ("\u212b", "A")])
def test_case_and_punctuation_count(one, other):
    high, low = content_hashes([one, other])
    assert (high[0], low[0]) != (high[1], low[1])


def removed(rows):
    columns = list(zip(*sorted(rows))) if rows else [[], [], [], []]
    table = removed_copies(pa.table([pa.array(list(c), f.type) for c, f in zip(columns, EXACT)], schema=EXACT))
    assert table.schema == EXACT_REMOVED
    return table.to_pylist()


def test_all_but_the_first_by_priority_and_number_are_removed():
    far = 3 << 32
    rows = [(7, 1, 1, 5), (7, 1, 0, far), (7, 1, 1, 4), (7, 2, 1, 6), (8, 1, 0, 9), (8, 1, 0, far + 2)]
    assert removed(rows) == [
        {"rank": 0, "doc": 4, "kept": far, "kept_preference": 0},
        {"rank": 0, "doc": 5, "kept": far, "kept_preference": 0},
        {"rank": 3, "doc": far + 2, "kept": 9, "kept_preference": 0},
    ]


def test_documents_of_an_index_remove_others_and_stay_out_of_the_result():
    old = 1 << 62
    rows = [(7, 1, -5, old), (7, 1, -4, old + 1), (7, 1, 1, 4), (8, 1, -5, old + 2)]
    assert removed(rows) == [{"rank": 0, "doc": 4, "kept": old, "kept_preference": -5}]


@pytest.mark.parametrize("rows", [[], [(1, 1, 0, 1)], [(1, 1, 0, 1), (1, 2, 0, 2), (2, 1, 0, 3)]])
def test_nothing_is_removed_without_a_copy(rows):
    assert removed(rows) == []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), max_size=20))
def test_one_of_each_text_stays(kinds):
    rows = [(high, low, priority, doc) for doc, (high, low, priority) in enumerate(kinds)]
    gone = {row["doc"]: row["kept"] for row in removed(rows)}
    for _, group in itertools.groupby(sorted(rows), key=lambda row: row[:2]):
        first, *others = [doc for _, _, _, doc in group]
        assert first not in gone
        assert all(gone[doc] == first for doc in others)
