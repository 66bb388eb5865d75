import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.text.words import segment

# Few words, every kind of separator, letters of one to four bytes: so that repeats and blank lines happen.
ALPHABET = [
    "a",
    "b",
    "T",
    "7",
    "#",
    ".",
    "…",
    "-",
    "é",
    "漢",
    "𝒳",
    "\u0301",
    " ",
    " ",
    "\n",
    "\n",
    "\r\n",
    "\t",
    "\u00a0",
    "\u3000",
    "\x85",
]
TEXTS = st.lists(st.lists(st.sampled_from(ALPHABET), max_size=40).map("".join), max_size=5)


def described(segments):
    """Every text's words, lines and paragraphs as plain values; a word as (code points, core, has a letter)."""
    texts = []
    for k in range(len(segments.offsets) - 1):
        words = range(segments.word_offsets[k], segments.word_offsets[k + 1])
        lines = range(segments.line_offsets[k], segments.line_offsets[k + 1])
        paragraphs = range(segments.paragraph_offsets[k], segments.paragraph_offsets[k + 1])
        cores = [segments.data[segments.core_starts[i] :][: segments.core_bytes[i]].tobytes().decode() for i in words]
        texts.append(
            {
                "chars": segments.chars[k],
                "alphanumerics": segments.alphanumerics[k],
                "physical": (segments.physical_lines[k], segments.physical_line_chars[k], segments.max_line_chars[k]),
                "words": [(segments.word_chars[i], core, segments.alphabetic[i]) for i, core in zip(words, cores, strict=True)],
                "lines": [
                    (segments.data[segments.line_starts[i] : segments.line_stops[i]].tobytes().decode(), segments.line_chars[i])
                    for i in lines
                ],
                "line_words": [segments.line_first_words[i + 1] - segments.line_first_words[i] for i in lines],
                "paragraphs": [segments.paragraph_chars[i] for i in paragraphs],
                "paragraph_words": [segments.paragraph_first_words[i + 1] - segments.paragraph_first_words[i] for i in paragraphs],
            }
        )
    return texts


def expected(text):
    """The same from the definitions, with Python's own string methods."""

    def core(word):
        places = [i for i, c in enumerate(word) if c.isalnum()]
        return word[places[0] : places[-1] + 1] if places else ""

    physical = [line.removesuffix("\r") for line in text.split("\n")]
    if text == "" or text.endswith("\n"):
        physical.pop()
    rows = text.split("\n")
    paragraphs = ["\n".join(group) for blank, group in itertools.groupby(rows, lambda row: not row.strip()) if not blank]
    return {
        "chars": len(text),
        "alphanumerics": sum(c.isalnum() for c in text),
        "physical": (len(physical), sum(map(len, physical)), max(map(len, physical), default=0)),
        "words": [(len(word), core(word), any(c.isalpha() for c in word)) for word in text.split()],
        "lines": [(row.strip(), len(row.strip())) for row in rows if row.strip()],
        "line_words": [len(row.split()) for row in rows if row.strip()],
        "paragraphs": [len(paragraph.strip()) for paragraph in paragraphs],
        "paragraph_words": [len(paragraph.split()) for paragraph in paragraphs],
    }


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example([])
@example([""])
@example([" \r\n\t", "", "\n"])
@example(["a\r\n\r\nb", "a\n \nb\n", "\n\na b\n", "no newline", "x\r"])
@example(["\u00a0漢 …é'é…\u3000𝒳"])
def test_segments_are_those_of_the_definitions(texts):
    assert described(segment(pa.array(texts, pa.string()))) == [expected(text) for text in texts]


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_a_slice_reads_its_own_rows_only(texts, start, length, large):
    array = pa.array(texts, pa.large_string() if large else pa.string()).slice(start, length)
    assert described(segment(array)) == [expected(text) for text in texts[start : start + length]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab\u0301漢"), min_size=1, max_size=4), max_size=30))
def test_hashes_are_equal_exactly_where_words_are(words):
    found = segment(pa.array([" ".join(words), "\n".join(words)])).word_hashes
    assert len(found) == 2 * len(words)
    assert (found[: len(words)] == found[len(words) :]).all()
    assert len(set(found.tolist())) == len(set(words))


def test_null_reads_as_empty():
    assert described(segment(pa.array(["a b", None, "c"]))) == [expected("a b"), expected(""), expected("c")]


def test_a_buffer_that_arrow_does_not_own_reads_the_same():
    text = b"one two\nthree"
    array = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, len(text)], np.int32)), pa.py_buffer(bytearray(text)))
    assert described(segment(array)) == [expected(text.decode())]


@pytest.mark.parametrize("broken", [b"a\xff b", b"\xe6\xbc", b"\xf0\x9d\x92 x", b"\x80\x80\n\xc3"])
def test_invalid_utf_8_neither_crashes_nor_reads_on(broken):
    text = broken + b" end"
    array = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, len(broken), len(text)], np.int32)), pa.py_buffer(text))
    segments = segment(array)
    assert segments.word_offsets[2] - segments.word_offsets[1] == 1
    assert segments.word_chars[-1] == 3


def test_other_types_are_refused_with_their_name():
    with pytest.raises(TypeError, match="int64, expected string"):
        segment(pa.array([1, 2]))
