from __future__ import annotations

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.text.folding import find_words, fold, folded_words, hash_words


@pytest.mark.parametrize(
    "text, words",
    [
        ("", []),
        (" \n\t", []),
        ("-- ... !", []),
        ("Hello, world!", ["hello", "world"]),
        ("Don't re-use the U.S. $1,000.50", ["dont", "reuse", "the", "us", "100050"]),
        ("snake_case and x-y", ["snakecase", "and", "xy"]),
        ("line one\r\nline\u00a0two\u2028three", ["line", "one", "line", "two", "three"]),
        ("Straße İstanbul ΣΊΣΥΦΟΣ", ["strasse", "istanbul", "σισυφοσ"]),
        ("ＦＵＬＬ ﬁne x² №5 ½", ["full", "fine", "x2", "no5", "12"]),
        ("caf\u00e9 cafe\u0301 cafe", ["cafe"] * 3),
        ("soft\u00adhyphen zero\u200bwidth", ["softhyphen", "zerowidth"]),
        ("他说：你好。ABC中文 カナ", ["他", "说", "你", "好", "abc", "中", "文", "カ", "ナ"]),
        ("한국어 문장", [unicodedata.normalize("NFKD", word) for word in ("한국어", "문장")]),
        ("สวัสดี ครับ", ["สวสด", "ครบ"]),
    ],
)
def test_words(text, words):
    assert folded_words(text) == words


texts = st.lists(
    st.text(
        st.one_of(st.sampled_from("aZß'-. \n9é\u0301中ガ\u3099㍿ﬁİſ\u200b\u00a0한"), st.characters(exclude_categories=["Cs"])), max_size=40
    )
)


@settings(deadline=None)
@given(texts)
def test_the_kernel_finds_the_words_that_are_defined(found):
    words = find_words(pa.array(found, pa.string()))
    for row, text in enumerate(found):
        of = slice(int(words.offsets[row]), int(words.offsets[row + 1]))
        expected = folded_words(text)
        assert words.hashes[of].tolist() == hash_words(expected).tolist()
        assert words.chars[row] == len(text)
        places = zip(words.start[of].tolist(), words.end[of].tolist(), words.byte_start[of].tolist(), words.byte_end[of].tolist())
        for (start, end, byte_start, byte_end), word in zip(places, expected, strict=True):
            assert bytes(words.data[byte_start:byte_end]).decode() == text[start:end]
            assert folded_words(text[start:end]) == [word]
        lines = [folded_words(line) for line in text.split("\n")]
        assert words.first[of].tolist() == [number == 0 for line in lines for number in range(len(line))]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_canonical_forms_have_equal_words(text):
    expected = folded_words(text)
    assert folded_words(unicodedata.normalize("NFC", text)) == expected
    assert folded_words(unicodedata.normalize("NFD", text)) == expected


@settings(deadline=None)
@given(st.text(st.characters(codec="latin-1", exclude_characters="\u00a8\u00af\u00b4\u00b8")))
def test_compatibility_forms_have_equal_words_but_for_spacing_accents(text):
    assert folded_words(unicodedata.normalize("NFKC", text)) == folded_words(text)
    assert folded_words(unicodedata.normalize("NFKD", text)) == folded_words(text)


def test_every_letter_and_digit_that_is_not_a_mark_stays():
    assert fold("\u0301") == "" == fold("_") == fold("…")
    assert all(fold(character).strip() for character in "aA0éßж한中ガﬁ²")


def test_a_slice_of_a_larger_array_and_nulls():
    words = find_words(pa.array(["skipped", "One two", None, "THREE"]).slice(1))
    assert words.offsets.tolist() == [0, 2, 2, 3]
    assert words.hashes.tolist() == hash_words(["one", "two", "three"]).tolist()
    assert words.start.tolist() == [0, 4, 0]
    assert words.chars.tolist() == [7, 0, 5]


def test_no_strings_are_refused():
    with pytest.raises(TypeError, match="expected string"):
        find_words(pa.array([1, 2]))
