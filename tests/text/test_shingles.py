from __future__ import annotations

import itertools
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.text.shingles import WORDS_PER_SHINGLE, ngrams, shingle_sets, word_hashes, word_shingles

# Letters whose lower case is longer, depends on its place, or is another script's; digits, marks and joiners of several scripts.
TRICKY = "İIıſKÅΣςσΑΣ ẞßÀéñЖы_-'’0٣²½ⅷ中日한ไทยनि\u0301\u200d\u00ad\U0001d538\U00010400\U0001f600\n\t\x1c\xa0."
TEXTS = st.text(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"]), st.sampled_from("abcXYZ019 ,._")), max_size=60)


def words_of(text):
    return re.findall(r"\w+", text.lower())


def split(offsets, values):
    return [values[start:stop].tolist() for start, stop in itertools.pairwise(offsets)]


@settings(deadline=None)  # the first example waits for the compiler
@given(st.lists(TEXTS, max_size=5))
def test_words_are_those_of_re_on_the_lower_cased_text(texts):
    words = [words_of(text) for text in texts]
    distinct = sorted({word for found in words for word in found})
    alone = split(*word_hashes(distinct))
    assert all(len(hashes) == 1 for hashes in alone)
    known = {word: hashes[0] for word, hashes in zip(distinct, alone)}
    assert len(set(known.values())) == len(known)
    assert split(*word_hashes(texts)) == [[known[word] for word in found] for found in words]


def test_every_code_point_is_classed_as_by_re():
    letters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    letters = [letter for letter in letters if letter.lower() == letter]  # the others were lower-cased by Python
    offsets, _ = word_hashes(letters)
    assert np.array_equal(np.diff(offsets) == 1, np.array([bool(re.fullmatch(r"\w", letter)) for letter in letters]))


@settings(deadline=None)  # the first example waits for the compiler
@given(st.lists(st.sampled_from(["a", "b", "Ω", "the", "and_so_on", "x1"]), max_size=9), st.sampled_from([" ", ", ", "\n", "—"]))
def test_a_shingle_is_five_words_in_their_order(words, gap):
    windows = [words[start : start + WORDS_PER_SHINGLE] for start in range(len(words) - WORDS_PER_SHINGLE + 1)]
    alone = {tuple(w): split(*word_shingles([" ".join(w)]))[0] for w in windows}
    assert all(len(hashes) == 1 for hashes in alone.values())
    assert len({hashes[0] for hashes in alone.values()}) == len({tuple(word.lower() for word in w) for w in windows})
    assert split(*word_shingles([gap.join(words)])) == [[alone[tuple(w)][0] for w in windows]]


@pytest.mark.parametrize("text", ["", " \n", "!?", "one", "one two three four"])
def test_a_text_under_five_words_has_no_shingles(text):
    offsets, shingles = word_shingles(["a b c d e", text, "a b c d e f"])
    assert offsets.tolist() == [0, 1, 1, 3]
    assert shingles[0] == shingles[1]


def test_no_texts_have_no_shingles():
    assert word_shingles([])[0].tolist() == [0]
    assert shingle_sets([])[0].tolist() == [0]


def test_shingle_sets_are_sorted_and_distinct():
    text = "the cat sat on the mat " * 50
    (found,) = split(*shingle_sets([text]))
    assert found == sorted(set(split(*word_shingles([text]))[0]))
    assert len(found) == 6


def test_words_and_shingles_do_not_collide_on_a_small_alphabet():
    # Short words of few letters are where a weak hash shows: all strings of up to four of eleven letters, all 5-tuples of eight words.
    letters = "abcdefghij0"
    words = ["".join(w) for length in range(1, 5) for w in itertools.product(letters, repeat=length)]
    _, hashes = word_hashes([" ".join(words)])
    assert len(np.unique(hashes)) == len(words)
    _, shingles = word_shingles([" ".join(w) for w in itertools.product(letters[:8], repeat=5)])
    assert len(np.unique(shingles)) == 8**5


def test_hash_bits_are_even():
    _, hashes = word_hashes([" ".join(str(number) for number in range(1 << 16))])
    ones = [int((hashes >> np.uint64(bit) & np.uint64(1)).sum()) for bit in range(64)]
    assert all(abs(count - 2**15) < 5 * 2**7 for count in ones)  # standard deviation of a fair coin: 2^7


def test_a_word_and_its_hash_are_the_same_wherever_it_stands():
    long = "x" * 1000 + "é" * 333
    texts = [long, f"a {long}", f"{long}!", f"Ünïcödé {long.upper()} z"]
    _, hashes = word_hashes(texts)
    assert hashes[[0, 2, 3, 5]].tolist() == [hashes[0]] * 4


@pytest.mark.parametrize("n", [1, 2, 3, 13])
def test_an_n_gram_has_one_hash_wherever_it_stands(n):
    words = [f"w{number}" for number in range(15)]
    texts = [" ".join(words), "", " ".join(words[:n]), " ".join(words[n - 2 :])]
    first, empty, alone, rest = split(*ngrams(*word_hashes(texts), n))
    assert len(set(first)) == len(first) == 15 - n + 1
    assert empty == []
    assert alone == first[:1]
    assert rest == first[max(0, n - 2) :] if n > 1 else rest == first[-1:]
    assert not set(first) & {value for other in (1, 2, 3, 13) if other != n for value in split(*ngrams(*word_hashes(texts), other))[0]}
