"""Copies of a corpus that repeat nothing of one another."""

from __future__ import annotations

import random
import re

from corpora import ciphered, reordered
from similarity import jaccard, shingle_sets

TEXT = "Zażółć gęślą jaźń, a 12 of THE words; straße and ΣΊΣΥΦΟΣ, слово 中文字符 x\n" * 2


def test_number_zero_is_the_text():
    assert ciphered(TEXT, 0) == reordered(TEXT, 0) == TEXT


def test_a_cipher_keeps_which_words_are_equal():
    words = re.findall(r"\w+", TEXT.lower())
    changed = re.findall(r"\w+", ciphered(TEXT, 3).lower())
    assert len(changed) == len(words)
    assert len(set(zip(words, changed))) == len(set(words)) == len(set(changed))
    assert ciphered("abc XYZ 789", 1) == "bcd YZA 890"
    assert len(ciphered(TEXT, 3).encode()) == len(TEXT.encode())


def test_copies_keep_the_similarities_and_share_no_shingle():
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=5)) for _ in range(200)]
    edited = [*words[:100], "another", *words[101:]]
    plain = shingle_sets([" ".join(words), " ".join(edited)])
    copies = shingle_sets([ciphered(" ".join(each), number) for number in (0, 1, 2) for each in (words, edited)])
    assert jaccard(*plain) == jaccard(*copies[2:4]) == jaccard(*copies[4:6]) < 1
    assert jaccard(copies[0], copies[2]) == jaccard(copies[2], copies[4]) == 0


def test_reordered_lines_keep_their_words():
    line = "one two three four five six seven eight"
    changed = reordered(f"{line}\nnine ten", 1)
    assert changed != f"{line}\nnine ten"
    assert sorted(changed.split("\n")[0].split()) == sorted(line.split())
