from __future__ import annotations

import itertools
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.text.sentences import ABBREVIATIONS, ENDERS, FULL_WIDTH_ENDERS, NUMBERED, segment

UNITS = ("sentence", "line", "paragraph")
ALPHABET = [*"aBé漢7", "Dr", "fig", "Mr", "12", *".!?…。", *"..", *"\"')”»(", "*", *"  \n", "\r\n", "\u00a0", "e\u0301", "\U0001d4b3", "\t"]
CLOSERS = "\"'" + "".join(chr(code) for code in range(0x3100) if unicodedata.category(chr(code)) in ("Pe", "Pf", "Pi"))
ENDS = f"[{re.escape(ENDERS + FULL_WIDTH_ENDERS)}][{re.escape(ENDERS + FULL_WIDTH_ENDERS + CLOSERS)}]*"
TEXTS = st.lists(st.lists(st.sampled_from(ALPHABET), max_size=40).map("".join), max_size=5)


def pieces_of(text, unit="sentence"):
    """The units of one text, cut out of it."""
    ends = segment([text], unit).ends.tolist()
    return [text[start:end] for start, end in zip([0, *ends], ends)]


def is_content(piece, unit):
    if unit == "sentence":
        kinds = [unicodedata.category(letter) for letter in piece]
        return any(kind[0] not in "PZ" and kind not in ("Cc", "Cf") for kind in kinds)
    return re.sub("[\x00-\x1f\x7f-\x9f。”»…]" if unit == "line" else "", "", piece.strip()) != ""


def goes_on(before, marks, behind):
    """Whether the sentence goes on: the text up to its marks, these, and what stands behind the white space in the same line."""
    closers = marks.strip(ENDERS + FULL_WIDTH_ENDERS)
    if unicodedata.category(behind[0]) == "Ll" and (closers or set(marks) <= set(".…")):
        return True
    if marks != ".":
        return False
    if re.fullmatch(r"[ \t]*\d{1,3}", before.rpartition("\n")[2], re.ASCII):
        return True
    letters = "".join(itertools.takewhile(str.isalnum, before[::-1]))[::-1]
    if len(letters) == 1 and unicodedata.category(letters) != "Nd":
        return True
    known = ABBREVIATIONS.split() + (NUMBERED.split() if unicodedata.category(behind[0]) == "Nd" else [])
    return letters.lower() in known


def expected(text, unit):
    """The units of a text by the definitions, with regular expressions; every one as (text, code points up to its line's end)."""
    pieces = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        begun = 0
        for found in re.finditer(ENDS, line) if unit == "sentence" else ():
            behind = line[found.end() :]
            gap = behind[: len(behind) - len(behind.lstrip())]
            if behind.strip() and (gap or set(found[0]) & set(FULL_WIDTH_ENDERS)):
                before = text[: len("".join(pieces)) + found.start() - begun]
                if not goes_on(before, found[0], behind.lstrip()):
                    pieces.append(line[begun : found.end() + len(gap)])
                    begun = found.end() + len(gap)
        pieces.append(line[begun:])
    units = []
    for piece in pieces:
        if is_content(piece, unit):
            units.append([piece])
        elif units:
            units[-1].append(piece)
    lead = text[: len(text) - sum(map(len, itertools.chain(*units)))]
    if units:
        units[0][0] = lead + units[0][0]
    lines = [next((place for place, piece in enumerate(unit) if piece.endswith("\n")), None) for unit in units]
    texts = ["".join(unit) for unit in units]
    up_to = [sum(map(len, texts[:place])) for place in range(len(texts))]
    stops = [
        start + len("".join(unit) if line is None else re.sub("\r?\n$", "", "".join(unit[: line + 1])))
        for start, unit, line in zip(up_to, units, lines)
    ]
    return list(zip(texts, stops))


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=400, deadline=None)
@given(texts=TEXTS)
@example(texts=["", " \n", "***", "\r\n\r\na", "a\r\n\n***\n\nB. C"])
@example(texts=["a! é. B? 12. a\n 12. B 7\n1234. B", "fig. 7 fig. B Dr. B aDr. B Dr.) B", 'a. B.. é… B…" a!" a! a'])
def test_units_are_those_of_the_definitions(unit, texts):
    units = segment(texts, unit)
    for text, (start, stop) in zip(texts, itertools.pairwise(units.offsets.tolist())):
        ends, line_ends = units.ends[start:stop].tolist(), units.line_ends[start:stop].tolist()
        assert [(text[begin:end], line_end) for begin, end, line_end in zip([0, *ends], ends, line_ends)] == expected(text, unit)
        assert units.byte_ends[start:stop].tolist() == [len(text[:end].encode()) for end in ends]
        assert not ends or ends[-1] == len(text)
        assert (units.hashes[start:stop] != 0).all()


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rained. ", "We stayed in! ", "Why? ", "“Because.” ", "So (he said.) ", 'Then "it ended." ', "Good."],
        ["Mr. and Mrs. Smith met J. R. Tolkien, Dr. No and the U.S. Army at 5 p.m. Monday. ", "They left."],
        ["See Fig. 3 and vol. 12, pp. 3-9. ", "There is no fig. ", "Tell me."],
        ["Version 3.14 of e.g. the file a.txt at www.example.com/x.html is out. ", "Get it."],
        ["1. Introduction\n", "2. Methods are many. ", "In 1998. ", "We won."],
        ["“Really?” he said. ", "Yes! ", "no? ", "wait... what. ", "Oh… ", "Well."],
        ["Line without an end\n", "another one\r\n\n * * *\n", "and a third. ", "Fourth"],
        ["今日は晴れ。", "明日は雨！", "「そうか。」", "と言った。 ", "終わり"],
        ["यह एक वाक्य है। ", "यह दूसरा है॥ ", "هل هذا سؤال؟ ", "یہ جملہ ہے۔ ", "Վերջ։ ", "ይህ።"],
        ["Mieszkał przy ul. Długiej, np. w maju. ", "Był to prof. Nowak i Ż. Zając. ", "Koniec."],
    ],
)
def test_sentences_that_a_reader_would_find(sentences):
    assert pieces_of("".join(sentences)) == sentences


def test_lines_and_paragraphs_keep_their_indents_and_take_blank_lines_along():
    text = "\n\n  def f():\n    return 1\n\n\n----\n  done\n"
    assert pieces_of(text, "line") == ["\n\n  def f():\n", "    return 1\n\n\n", "----\n", "  done\n"]
    assert pieces_of(text, "paragraph") == pieces_of(text, "line")
    assert pieces_of(text, "sentence") == ["\n\n  def f():\n", "    return 1\n\n\n----\n", "  done\n"]


@pytest.mark.parametrize("unit, forms", [("sentence", 3), ("line", 2), ("paragraph", 4)])
def test_each_unit_is_compared_in_its_form(unit, forms):
    hashes = segment(["The year 1998!", "the year 1998.", "The year 1998!  ", "the year 2001."], unit).hashes
    assert len(set(hashes.tolist())) + (unit == "sentence") + (unit == "paragraph") == forms


def test_words_of_a_unit():
    units = segment(["One two. Three — 4!\n漢字 x\n---\n"], "sentence")
    assert units.words.tolist() == [2, 2, 3]


def test_seventy_thousand_sentences_in_one_text():
    units = segment(["Short", " ".join(f"Sentence {number}." for number in range(70_000)), "x"], "sentence")
    assert np.diff(units.offsets).tolist() == [1, 70_000, 1]
    assert len(set(units.hashes.tolist())) == 70_002
    assert (np.diff(units.ends[1:-1]) > 10).all()


@pytest.mark.parametrize("text", ["word " * 400_000, "漢" * 400_000, "." * 400_000, "a." * 200_000, " " * 400_000 + "1. B", " " * 400_000])
def test_a_long_line_is_one_sentence(text):
    assert len(pieces_of(text)) == (1 if text.strip(" .") else 0)


def test_no_texts():
    units = segment([], "sentence")
    assert units.offsets.tolist() == [0]
    assert len(units.ends) == 0
