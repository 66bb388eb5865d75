from __future__ import annotations

import itertools
import re
import string
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.dedup.exact import normalised
from headrace.text.forms import CCNET_PUNCTUATION, form_hashes

FORMS = ("unpunctuated-1", "ccnet-1", "whitespace-1")
TRICKY = (
    "aAbBſßẞÉéèИйﬁΣσςİiıǅǆⅣⅳⒶⓐ漢あア한٣９_1270०कि्e\u0301\u0323\u0307\u200d\u00ad.,-–—«»“”'\"。！…(½²+<>=$|~^№ \t\n\u00a0\u3000\x1c\x00\x85"
)
PIECES = st.lists(st.text(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"])), max_size=12), max_size=8)
LEFT_OUT = re.compile(f"[{re.escape(CCNET_PUNCTUATION + ''.join(map(chr, [*range(32), *range(127, 160)])))}]")


def lower(text):
    return "".join("σ" if letter == "ς" else letter.lower()[0] for letter in text)


def unpunctuated(text):
    """`unpunctuated-1` by the letter of its definition."""
    text = lower("".join(letter for letter in unicodedata.normalize("NFC", text) if unicodedata.category(letter) != "Cf"))
    gaps = [letter.isspace() or unicodedata.category(letter)[0] in "PZ" or unicodedata.category(letter) == "Cc" for letter in text]
    return " ".join("".join(" " if gap else letter for letter, gap in zip(text, gaps)).split(" ")).split()


def ccnet(text):
    """`normalize_for_dedup` of CCNet, apart from what `str.lower` does with the letters around."""
    return LEFT_OUT.sub("", re.sub(r"\d", "0", lower(text.strip())))


DEFINED = {"unpunctuated-1": unpunctuated, "ccnet-1": ccnet, "whitespace-1": normalised}


def hashes_of(pieces, form):
    encoded = [piece.encode() for piece in pieces]
    bounds = np.array([0, *itertools.accumulate(map(len, encoded))], np.int64)
    data = np.frombuffer(b"".join(encoded), np.uint8)
    decomposed = np.array([not unicodedata.is_normalized("NFC", piece) for piece in pieces], bool)
    hashes, words = form_hashes(data, bounds[:-1], bounds[1:], form, decomposed)
    return hashes.tolist(), words.tolist()


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=300, deadline=None)
@given(pieces=PIECES)
@example(pieces=["", " ", ".", "\u200d", "。", "\x00"])
@example(pieces=["。 a", " a", "a", "a 。", "a", "a\u00a0", "\x00a b", "a  b", "a b"])
@example(pieces=["e\u0301.", "\u00e9", "E\u0301", "\u00c9"])
@example(pieces=["ΣΑΣ", "σας", "σασ", "İ", "i", "I", "ı"])
def test_hashes_are_equal_exactly_where_forms_are(form, pieces):
    forms = [str(DEFINED[form](piece)) for piece in pieces]
    hashes, _ = hashes_of(pieces, form)
    for (one, first), (other, second) in itertools.combinations(zip(forms, hashes), 2):
        assert (one == other) == (first == second), (one, other)
    assert [found == 0 for found in hashes] == [not DEFINED[form](piece) for piece in pieces]


@pytest.mark.parametrize("form", FORMS)
def test_every_code_point_takes_its_place(form):
    letters = [chr(code) for code in [*range(0xD800), *range(0xE000, 0x20000), *range(0xE0000, 0xE0200), sys.maxunicode]]
    if form != "ccnet-1":
        letters = [letter for letter in letters if unicodedata.is_normalized("NFC", letter)]
    pieces = [f"a{letter}b" for letter in letters]
    known = {}
    for letter, found in zip(letters, hashes_of(pieces, form)[0]):
        assert known.setdefault(str(DEFINED[form](f"a{letter}b")), found) == found, hex(ord(letter))
    assert len(set(known.values())) == len(known)


@pytest.mark.parametrize(
    "one, other, equal",
    [
        ("In 1998, sales ROSE!", "in 1998 sales rose", ("unpunctuated-1",)),
        ("In 1998 sales rose.", "In 1999 sales rose.", ("ccnet-1",)),
        ("Well… “yes”", "well yes", ("unpunctuated-1", "ccnet-1")),
        ("a < b", "a > b", ()),
        ("state-of-the-art", "state of the art", ("unpunctuated-1",)),
        ("soft\u00adware", "software", ("unpunctuated-1",)),
        ("one\ttwo ", "one  two", ("unpunctuated-1", "whitespace-1")),
        ("Caf\u00e9", "Cafe\u0301", ("unpunctuated-1", "whitespace-1")),
    ],
)
def test_what_the_forms_tell_apart(one, other, equal):
    assert tuple(form for form in FORMS if len(set(hashes_of([one, other], form)[0])) == 1) == equal


@settings(max_examples=300, deadline=None)
@given(PIECES)
def test_words_are_runs_of_letters_marks_and_digits_and_single_ideographs(pieces):
    ideograph = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

    def count(text):
        in_word = [unicodedata.category(letter)[0] in "LMN" or letter == "_" for letter in text]
        marks = [(" y " if ideograph.match(letter) else "x") if inside else " " for letter, inside in zip(text, in_word)]
        return len("".join(marks).split())

    assert hashes_of(pieces, "ccnet-1")[1] == [count(piece) for piece in pieces]
    composed = [unicodedata.normalize("NFC", piece) for piece in pieces]
    assert hashes_of(pieces, "unpunctuated-1")[1] == [count(piece) for piece in composed]


def test_short_pieces_of_few_letters_do_not_collide():
    pieces = ["".join(letters) for length in range(1, 5) for letters in itertools.product(string.ascii_lowercase[:11], repeat=length)]
    pieces += [" ".join(letters) for letters in itertools.product("abcdefgh", repeat=5)]
    hashes, _ = hashes_of(pieces, "unpunctuated-1")
    assert len(set(hashes)) == len(pieces)
    ones = [sum(found >> bit & 1 for found in hashes) for bit in range(64)]
    assert all(abs(2 * count - len(hashes)) < 5 * len(hashes) ** 0.5 for count in ones)  # five standard deviations of a fair coin


def test_a_piece_has_its_hash_wherever_it_stands():
    long = "wörd " * 5000 + "漢字。"
    hashes, words = hashes_of([long, "x", f"  {long}\n", long.upper()], "unpunctuated-1")
    assert hashes[0] == hashes[2] == hashes[3] != hashes[1]
    assert words == [5002, 1, 5002, 5002]
