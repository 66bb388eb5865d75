from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace import artifact
from headrace.dedup import sentence
from headrace.dedup.document import DocumentDedup
from headrace.dedup.levels import Dedup, deduplicate
from headrace.dedup.sentence import SentenceDedup

ANY = {"min_words": 0, "min_units": 1}  # nothing is too short, unless nothing is left
SENTENCES = ["Ab.", "AB cd!", "Ef…", "Gh 1?", "?!"]
LINES = ["ab", "AB”", "cd 1", "CD 2", " ef", "。", ""]
PARAGRAPHS = ["ab", " ab\t", "AB", "c  d", "c d", "-", ""]


def dedup(config, document=None):
    return Dedup(document=document, sentence=SentenceDedup(**config))


@pytest.fixture(scope="session")
def run(rows_of):
    """A function: cuts, id -> [(start, end, kept id)], and the ids of the documents that were too short afterwards."""

    def run(folder, units, config, document=None):
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        records = deduplicate(units, dedup(config, document), out, "local").units
        removed = [row for row in rows_of(out, "removed") if row["level"] == "sentence"]
        whole = [row for row in removed if row["start"] is None]
        assert all(row["end"] is row["kept_id"] is row["score"] is None for row in whole)
        short = {row["doc"]: row["id"] for row in whole}
        assert set(short) == {row["doc"] for row in rows_of(out, "verdicts") if row["reason"] == "short_after_sentence_dedup"}
        assert sum(record["rejected"].get("short_after_sentence_dedup", 0) for record in records) == len(short)
        cuts = {}
        for row in removed:
            if row["start"] is not None:
                assert row["score"] == 1
                cuts.setdefault(row["id"], []).append((row["start"], row["end"], row["kept_id"]))
        texts = {row["id"]: row["text"] for unit in units for row in artifact.read_table(unit["documents"]).to_pylist()}
        for name, found in cuts.items():
            bounds = list(itertools.chain([0], *(cut[:2] for cut in found), [len(texts[name])]))
            assert bounds == sorted(bounds)
            assert all(start < end for start, end, _ in found)
        assert sum(record["counters"]["sentence_cuts"] for record in records) == sum(map(len, cuts.values()))
        return cuts, set(short.values())

    return run


def remaining(text, cuts):
    starts, ends = [start for start, _, _ in cuts], [end for _, end, _ in cuts]
    return "".join(text[end:start] for end, start in zip([0, *ends], [*starts, len(text)]))


# What the units of a text made of these pieces are: (start, end, end of its line, what it is compared by, words), by the definitions.
def key_of(piece, unit):
    if unit == "sentence":
        return " ".join("".join(letter.lower() if letter.isalnum() else " " for letter in piece).split())
    if unit == "line":
        return "".join("0" if letter.isdigit() else letter for letter in piece.strip().lower() if letter not in "”。\r\n")
    return " ".join(piece.split())


def units_of(pieces, unit):
    units, place = [], 0
    for piece in pieces:
        start, place = place, place + len(piece)
        ends_line = piece.endswith("\n")
        line_end = place - (len(piece) - len(piece.rstrip("\r\n"))) if ends_line else None
        if key := key_of(piece, unit):
            units.append([start if units else 0, place, line_end, key, len(key.split()) if unit == "sentence" else None])
        elif units:
            units[-1][1] = place
            units[-1][2] = line_end if units[-1][2] is None else units[-1][2]
    return [(start, end, end if line is None else line, key, words) for start, end, line, key, words in units]


def by_definition(documents, unit, span, keep, min_words, min_units):
    """The same as `run` from (order, id, pieces) of the documents, span by span."""
    cut, occurrences = {}, {}
    documents = sorted((order, name, units_of(pieces, unit)) for order, name, pieces in documents)
    for _, name, units in documents:
        for place in range(len(units) - span + 1):
            occurrences.setdefault(tuple(part[3] for part in units[place : place + span]), []).append((name, place))
    for places in occurrences.values():
        for number, (name, place) in enumerate(places):
            gone = len(places) > 1 if keep == "none" else number >= (1 if keep == "first" else keep)
            if gone:
                kept = places[1] if number == 0 else places[0]
                for covered in range(place, place + span):
                    cut.setdefault((name, covered), []).append((place, kept[0]))
    cuts, short = {}, set()
    for _, name, units in documents:
        gone = [place for place in range(len(units)) if (name, place) in cut]
        rows = []
        for place in gone:
            start, end = units[place][:2]
            if place + 1 not in gone:  # the end of a piece: where does it begin?
                first = next(before for before in range(place, -1, -1) if before - 1 not in gone)
                if first and units[first - 1][2] == units[first - 1][1]:
                    end = units[place][2]
            kept = min(cut[name, place])[1]
            if rows and rows[-1][1] == start and rows[-1][2] == kept:
                start = rows.pop()[0]
            rows.append((start, end, kept))
        if rows:
            cuts[name] = rows
            left = [part for place, part in enumerate(units) if place not in gone]
            if len(left) < min_units or (unit == "sentence" and sum(part[4] for part in left) < min_words):
                short.add(name)
    return cuts, short


def corpora(pieces, ends):
    document = st.lists(st.tuples(st.sampled_from(pieces), st.sampled_from(ends)).map("".join), max_size=14)
    return st.lists(st.lists(document, max_size=4), min_size=1, max_size=3)


KEEPS = st.sampled_from(["first", "none", 1, 2, 3])


@pytest.fixture(scope="session")
def check(documents_file, run):
    """A function: hold the cuts of a corpus against the definition."""

    def check(folder, corpus, priorities, config):
        units = [
            documents_file(folder, rank, ["".join(pieces) for pieces in texts], priority=priority)
            for rank, (texts, priority) in enumerate(zip(corpus, priorities))
        ]
        documents = [
            ((priority, rank, row), f"r{rank}-{row}", pieces)
            for rank, (texts, priority) in enumerate(zip(corpus, priorities))
            for row, pieces in enumerate(texts)
        ]
        config = {"unit": "sentence", **config}
        cuts, short = run(folder, units, config)
        assert (cuts, short) == by_definition(documents, **config)
        if config["keep"] in ("first", 1):  # what is cut here stays elsewhere
            parts = [(name, *part) for _, name, pieces in documents for part in units_of(pieces, config["unit"])]
            left = {key for name, start, _, _, key, _ in parts if not any(first <= start < end for first, end, _ in cuts.get(name, ()))}
            assert left == {key for _, _, _, _, key, _ in parts}

    return check


@settings(max_examples=40, deadline=None)
@given(
    corpus=corpora(SENTENCES, [" ", " ", "  ", "\n", "\r\n", "\n\n"]),
    priorities=st.permutations([0, 0, 1]),
    span=st.integers(1, 4),
    keep=KEEPS,
    min_words=st.integers(0, 6),
    min_units=st.integers(1, 4),
)
def test_cuts_of_sentences_are_those_of_the_definition(tmp_path_factory, check, corpus, priorities, span, keep, min_words, min_units):
    config = {"span": span, "keep": keep, "min_words": min_words, "min_units": min_units}
    check(tmp_path_factory.mktemp("c"), corpus, priorities, config)


@pytest.mark.parametrize("unit, pieces", [("line", LINES), ("paragraph", PARAGRAPHS)])
@settings(max_examples=25, deadline=None)
@given(data=st.data(), priorities=st.permutations([0, 0, 1]), span=st.integers(1, 3), keep=KEEPS, min_units=st.integers(1, 4))
def test_cuts_of_lines_and_paragraphs_are_those_of_the_definition(
    tmp_path_factory, check, unit, pieces, data, priorities, span, keep, min_units
):
    corpus = data.draw(corpora(pieces, ["\n", "\r\n"]))
    config = {"unit": unit, "span": span, "keep": keep, "min_words": 0, "min_units": min_units}
    check(tmp_path_factory.mktemp("c"), corpus, priorities, config)


BEFORE = "The weather was fine. We went out early. "
SHARED = "Nobody saw the fox. It crossed the road. Then it was gone. "
BEHIND = "We never spoke of it. That is all."


def test_all_but_the_first_of_a_three_sentence_span_are_discarded(tmp_path, documents_file, run):
    two = "Something else altogether. " + SHARED.replace(". ", "!  ").upper() + "The end of it."
    texts = [BEFORE + SHARED + BEHIND, two, "Nobody saw the fox. It crossed the road. So did we."]
    cuts, short = run(tmp_path, [documents_file(tmp_path, 0, texts)], ANY)
    assert cuts == {"r0-1": [(27, 27 + len(SHARED) + 3, "r0-0")]}  # two sentences of a span are none
    assert remaining(two, cuts["r0-1"]) == "Something else altogether. The end of it."
    assert short == set()


def test_a_cut_leaves_the_lines_of_a_text(tmp_path, documents_file, run):
    alone = SHARED.strip()
    texts = [SHARED + "Some.", f"One. {alone}\nTwo.", f"Three.\n{alone}\n\n Four.", f"Five.\n{SHARED}Six.", f"Seven. {alone}\r\n", SHARED]
    cuts, _ = run(tmp_path, [documents_file(tmp_path, 0, texts)], ANY)
    left = [remaining(text, cuts.get(f"r0-{row}", [])) for row, text in enumerate(texts)]
    assert left == [texts[0], "One. \nTwo.", "Three.\n Four.", "Five.\nSix.", "Seven. \r\n", ""]


@pytest.mark.parametrize(
    "keep, expected",
    [
        ("first", {"r0-1": [(0, 2, "r0-0")], "r0-2": [(0, 4, "r0-0")]}),
        (1, {"r0-1": [(0, 2, "r0-0")], "r0-2": [(0, 4, "r0-0")]}),
        (2, {"r0-2": [(0, 4, "r0-0")]}),
        (3, {"r0-2": [(2, 4, "r0-0")]}),
        ("none", {"r0-0": [(0, 2, "r0-1")], "r0-1": [(0, 2, "r0-0")], "r0-2": [(0, 4, "r0-0")]}),
    ],
)
def test_how_many_occurrences_stay(tmp_path, documents_file, run, keep, expected):
    texts = ["a\nb\n", "a\nc\n", "a\na\nd\n"]
    assert run(tmp_path, [documents_file(tmp_path, 0, texts)], {"unit": "line", "span": 1, "keep": keep, **ANY})[0] == expected


def test_a_document_that_repeats_itself_names_itself(tmp_path, documents_file, run):
    units = [documents_file(tmp_path, 0, ["x\ny\n" * 3])]
    assert run(tmp_path, units, {"unit": "line", "span": 2, **ANY})[0] == {"r0-0": [(4, 12, "r0-0")]}
    assert run(tmp_path, units, {"unit": "line", "span": 2, "keep": "none", **ANY})[0] == {"r0-0": [(0, 12, "r0-0")]}


def test_units_without_content_are_no_repeats_of_one_another(tmp_path, documents_file, run):
    texts = ["One.\n* * *\n—\n\n* * *\nTwo.\n", "* * *\n—\n\n* * *\nThree.\n", "***", "***", "", ""]
    assert run(tmp_path, [documents_file(tmp_path, 0, texts)], {"span": 1, **ANY}) == ({}, set())


def test_priority_decides_whose_copy_stays(tmp_path, documents_file, run):
    units = [documents_file(tmp_path, rank, [f"{rank} only.\n" + SHARED], priority=priority) for rank, priority in enumerate([2, 1, 2])]
    cuts, _ = run(tmp_path, units, ANY)
    assert {name: [kept for _, _, kept in found] for name, found in cuts.items()} == {"r0-0": ["r1-0"], "r2-0": ["r1-0"]}


def test_only_documents_that_stand_are_compared(tmp_path, documents_file, run):
    near = SHARED + BEFORE + BEHIND
    texts = [SHARED + "Rejected before. No more.", near, near + " ", SHARED + "And then the rain came back. Again we went home."]
    units = [documents_file(tmp_path, 0, texts, rejected={0})]
    cuts, _ = run(tmp_path, units, ANY, DocumentDedup(bands=64, rows=1))
    assert cuts == {"r0-3": [(0, len(SHARED), "r0-1")]}


@pytest.mark.parametrize("words, units, short", [(50, 3, True), (9, 1, False), (10, 1, True), (0, 3, False), (0, 4, True)])
def test_what_is_left_too_short_goes(tmp_path, documents_file, run, words, units, short):
    rest = "One two three. Four five six. Seven eight nine."
    texts = [SHARED, SHARED + rest, "Only a few words. That nobody repeats."]
    cuts, gone = run(tmp_path, [documents_file(tmp_path, 0, texts)], {"min_words": words, "min_units": units})
    assert set(cuts) == {"r0-1"}
    assert gone == ({"r0-1"} if short else set())


def test_a_position_beyond_sixteen_bits(tmp_path, documents_file, run):
    lines = [f"line {number:x}\n" for number in range(70_000)]
    texts = ["".join(lines), "x\n" + "".join(lines[66_000:66_003])]
    cuts, _ = run(tmp_path, [documents_file(tmp_path, 0, texts[::-1])], {"unit": "paragraph", **ANY})
    start = len("".join(lines[:66_000]))
    assert cuts == {"r0-1": [(start, start + len("".join(lines[66_000:66_003])), "r0-0")]}


def test_a_thousand_copies_of_one_document(tmp_path, documents_file, run):
    units = [documents_file(tmp_path, rank, [SHARED + BEHIND] * 250) for rank in range(4)]
    cuts, short = run(tmp_path, units, {})
    assert len(cuts) == len(short) == 999
    assert set(map(tuple, cuts.values())) == {((0, len(SHARED + BEHIND), "r0-0"),)}


def test_files_without_documents_and_without_kept_documents(tmp_path, documents_file, run):
    units = [documents_file(tmp_path, 0, []), documents_file(tmp_path, 1, [SHARED], rejected={0}), documents_file(tmp_path, 2, [SHARED])]
    assert run(tmp_path, units, ANY) == ({}, set())


@pytest.mark.parametrize("keep", ["first", "none", 2])
def test_the_cuts_do_not_depend_on_how_the_documents_are_filed(tmp_path, documents_file, run, keep):
    rng = random.Random(2)
    stock = [f"{a}{b}\n" for a in "abc" for b in "xyz"]
    texts = ["".join(rng.choices(stock, k=rng.randrange(12))) for _ in range(60)]
    found = []
    for size in (60, 20, 7):
        names = [f"r{rank}-{row}" for rank in range(-(-60 // size)) for row in range(min(size, 60 - rank * size))]
        number = {name: place for place, name in enumerate(names)}
        units = [documents_file(tmp_path / str(size), rank, texts[first : first + size]) for rank, first in enumerate(range(0, 60, size))]
        cuts, short = run(tmp_path / str(size), units, {"unit": "line", "keep": keep, "span": 2, "min_words": 0, "min_units": 2})
        renamed = {number[name]: [(start, end, number[kept]) for start, end, kept in rows] for name, rows in cuts.items()}
        found.append((renamed, {number[name] for name in short}))
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) > 20


def test_the_output_and_its_version_change_together(tmp_path, repeated_sentences, rows_of):
    records = deduplicate(repeated_sentences(tmp_path), dedup({"min_words": 20, "min_units": 2}), tmp_path / "out", "local").units
    assert sum(record["rejected"]["short_after_sentence_dedup"] for record in records) > 10
    rows = [rows_of(tmp_path / "out", kind) for kind in ("verdicts", "removed")]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert (sentence.VERSION, digest[:16]) == (1, "6d8bc2719a172014")


@pytest.mark.parametrize("wrong", [{"unit": "word"}, {"span": 0}, {"keep": "all"}, {"keep": 0}, {"min_words": -1}, {"min_units": 0}])
def test_a_configuration_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValidationError):
        SentenceDedup(**wrong)


def test_paragraphs_are_dolma_s(tmp_path, shared, documents_file, run):
    folder = shared / "data" / "filter_parity" / "dolma"
    names = ("input__deduper__documents__000.json.gz", "expected__dedupe-paragraphs.json.gz")
    documents, expected = (
        [json.loads(line) for line in gzip.decompress((folder / name).read_bytes()).splitlines() if line] for name in names
    )
    texts = [row["text"] for row in documents]
    cuts, _ = run(tmp_path, [documents_file(tmp_path, 0, texts)], {"unit": "paragraph", "span": 1, **ANY})
    for row, (text, attributes) in enumerate(zip(texts, expected)):
        spans = [(start, end) for start, end, _ in attributes["attributes"]["bff_duplicate_paragraph_spans"]]
        merged = [bounds for bounds in itertools.chain(*spans) if sum(bounds in span for span in spans) == 1]
        found = itertools.chain(*(cut[:2] for cut in cuts.get(f"r0-{row}", [])))
        # Dolma counts one code point more for a line feed behind the last paragraph of a text that holds more bytes than code points.
        assert list(found) == [min(bound, len(text)) for bound in merged]
