from __future__ import annotations

import hashlib
import json
import random
import shutil

import pytest
from pydantic import ValidationError

from headrace import artifact
from headrace.dedup import document
from headrace.dedup.document import DocumentDedup
from headrace.dedup.levels import Dedup, deduplicate

EVERY_PAIR = DocumentDedup(bands=64, rows=1)  # as `removals` has it
WORDS = [f"word{number}" for number in range(5000)]


def prose(rng, count=120):
    return rng.choices(WORDS, k=count)


def replaced(rng, words, count):
    """`words` with `count` of them, in a run, replaced: |run| + 4 shingles of each text are its own."""
    start = rng.randrange(len(words) - count)
    return [*words[:start], *prose(rng, count), *words[start + count :]]


@pytest.fixture
def groups(tmp_path, rows_of):
    """A function: doc -> (group, content) of all documents."""
    return lambda: {row["doc"]: (row["group"], row["content"]) for row in rows_of(tmp_path / "out", "verdicts")}


def similarity(one, other):
    """Jaccard of the five-word shingles of two lists of words, by Python's own sets."""
    sets = [{tuple(words[start : start + 5]) for start in range(len(words) - 4)} for words in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_exact_copies_differ_in_white_space_and_unicode_form_only(tmp_path, documents_file, removals, groups):
    text = "Caf\u00e9 au lait, please, and be quick about it."
    texts = [text, f"  {text}\n", text.replace("\u00e9", "e\u0301").replace(" ", "\u00a0"), "another text of more than five words"]
    removed = removals(tmp_path, [documents_file(tmp_path, 0, texts)])
    assert removed == {"r0-1": ("exact_duplicate", "r0-0", 1.0), "r0-2": ("exact_duplicate", "r0-0", 1.0)}
    found = groups()
    assert found[0] == found[1] == found[2]
    assert found[3][0] == 3


def test_texts_that_differ_in_case_or_punctuation_are_near_duplicates_with_equal_words(tmp_path, documents_file, removals):
    text = "Stra\u00dfe Caf\u00e9 au lait, please, and be quick about it."
    removed = removals(tmp_path, [documents_file(tmp_path, 0, [text, text.upper().replace("SS", "\u1e9e"), text.replace(",", "!")])])
    assert removed == {"r0-1": ("near_duplicate", "r0-0", 1.0), "r0-2": ("near_duplicate", "r0-0", 1.0)}


@pytest.mark.parametrize("text", ["", " \n\t", "!?", "word", "one two three four"])
def test_texts_under_five_words_take_part_in_exact_deduplication_only(tmp_path, documents_file, removals, text):
    removed = removals(tmp_path, [documents_file(tmp_path, 0, [text, text + " .", text + " ", "x"])])
    assert removed == {"r0-2": ("exact_duplicate", "r0-0", 1.0)}


def test_a_thousand_copies_of_one_document_leave_one(tmp_path, documents_file, removals):
    rng = random.Random(1)
    text = " ".join(prose(rng))
    units = [documents_file(tmp_path, rank, [text] * 250 + [" ".join(prose(rng))]) for rank in range(4)]
    removed = removals(tmp_path, units, DocumentDedup())
    assert len(removed) == 999
    assert set(removed.values()) == {("exact_duplicate", "r0-0", 1.0)}


def test_a_thousand_near_copies_leave_one(tmp_path, documents_file, removals, groups):
    rng = random.Random(2)
    words = prose(rng, 400)
    units = [documents_file(tmp_path, rank, [" ".join(replaced(rng, words, 1)) for _ in range(500)]) for rank in range(2)]
    removed = removals(tmp_path, units, DocumentDedup())
    assert len(removed) == 999  # similarity 0.95 or more with r0-0, which every bucket of theirs pairs them with
    assert {reason for reason, _, _ in removed.values()} == {"near_duplicate"}
    assert {found[0] for found in groups().values()} == {0}


def chain(rng):
    """A ~ B ~ C with A and C too far apart: each step replaces another quarter of a long text's tenth."""
    a = prose(rng, 300)
    b = [*prose(rng, 30), *a[30:]]
    c = [*b[:270], *prose(rng, 30)]
    assert similarity(a, b) > 0.75 < similarity(b, c)
    assert similarity(a, c) < 0.75
    return {name: " ".join(words) for name, words in zip("abc", (a, b, c))}


@pytest.mark.parametrize(
    "order, expected",
    [
        ("abc", {1: 0, 2: 1}),  # B repeats A, C repeats B: whether B stays does not matter
        ("bac", {1: 0, 2: 0}),
        ("acb", {2: None}),  # only B has a neighbour before it: both ends stay
        ("cba", {1: 0, 2: 1}),
    ],
)
def test_dominated_on_a_chain(tmp_path, documents_file, removals, groups, order, expected):
    texts = chain(random.Random(3))
    removed = removals(tmp_path, [documents_file(tmp_path, 0, [texts[name] for name in order])])
    assert set(removed) == {f"r0-{row}" for row in expected}
    for row, kept in expected.items():
        if kept is not None:
            assert removed[f"r0-{row}"][1] == f"r0-{kept}"
    assert {found for found, _ in groups().values()} == {0}


def test_the_most_similar_of_several_better_documents_is_named(tmp_path, documents_file, removals):
    rng = random.Random(4)
    words = prose(rng, 200)
    far, near = replaced(rng, words, 12), replaced(rng, words, 2)
    score = similarity(near, words)
    assert score > similarity(far, words) > 0.75
    removed = removals(tmp_path, [documents_file(tmp_path, 0, [" ".join(far), " ".join(near), " ".join(words)])])
    assert removed["r0-2"][:2] == ("near_duplicate", "r0-1")
    assert removed["r0-2"][2] == pytest.approx(score, abs=1e-7)


def test_of_equal_scores_the_first_by_priority_is_named(tmp_path, documents_file, removals, groups):
    text = "one two three four five six"
    texts = [text.upper(), text.title(), text]
    units = [documents_file(tmp_path, rank, [texts[rank]], priority=priority) for rank, priority in enumerate([3, 1, 2])]
    removed = removals(tmp_path, units)
    assert removed == {"r0-0": ("near_duplicate", "r1-0", 1.0), "r2-0": ("near_duplicate", "r1-0", 1.0)}
    # A group is named after its smallest document, whoever stays.
    assert {found for found, _ in groups().values()} == {0}
    assert len({content for _, content in groups().values()}) == 1


def test_priority_decides_among_exact_copies(tmp_path, documents_file, removals):
    text = "one two three four five six"
    units = [documents_file(tmp_path, rank, [text], priority=priority) for rank, priority in enumerate([1, 0, 1])]
    assert removals(tmp_path, units) == {"r0-0": ("exact_duplicate", "r1-0", 1.0), "r2-0": ("exact_duplicate", "r1-0", 1.0)}


def test_documents_rejected_before_play_no_part(tmp_path, documents_file, removals, groups):
    rng = random.Random(5)
    words = prose(rng)
    texts = [" ".join(words), " ".join(words), " ".join(replaced(rng, words, 3)), " ".join(replaced(rng, words, 3))]
    removed = removals(tmp_path, [documents_file(tmp_path, 0, texts, rejected={0, 2})])
    assert set(removed) == {"r0-3"}
    assert removed["r0-3"][:2] == ("near_duplicate", "r0-1")
    found = groups()
    assert found[0] == (0, 0)
    assert found[2] == (2, 0)
    assert found[1] == found[3]
    assert found[1][0] == 1


def test_files_without_documents_and_without_kept_documents(tmp_path, documents_file, removals):
    text = "one two three four five six"
    units = [documents_file(tmp_path, 0, []), documents_file(tmp_path, 1, [text], rejected={0}), documents_file(tmp_path, 2, [text])]
    assert removals(tmp_path, units) == {}
    assert deduplicate([], Dedup(document=EVERY_PAIR), tmp_path / "none", "local").units == []


def in_order(units):
    """(id, words) of the documents that reach deduplication, the preferred first."""
    documents = []
    for unit in units:
        reasons = artifact.read_table(unit["verdicts"][0])["reason"].to_pylist()
        rows = artifact.read_table(unit["documents"]).to_pylist()
        documents += [(unit["priority"], row["doc"], row["id"], row["text"].split()) for row, why in zip(rows, reasons) if why is None]
    return [row[2:] for row in sorted(documents, key=lambda row: row[:2])]


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_are_those_of_all_pairs_compared(tmp_path, edited_documents, removals, seed):
    units = edited_documents(tmp_path, seed)
    expected, first = {}, []
    for name, words in in_order(units):
        if copy := next((other for other, same in first if same == words), None):
            expected[name] = ("exact_duplicate", copy, 1.0)
            continue
        long = [(other, known) for other, known in first if min(len(words), len(known)) >= 5]
        scores = [(other, similarity(words, known)) for other, known in long]
        if near := [(other, score) for other, score in scores if score >= 0.75]:
            expected[name] = ("near_duplicate", *max(near, key=lambda pair: pair[1]))  # max keeps the first of equals
        first.append((name, words))
    found = removals(tmp_path, units)
    assert {name: row[:2] for name, row in found.items()} == {name: row[:2] for name, row in expected.items()}
    assert all(found[name][2] == pytest.approx(expected[name][2], abs=1e-7) for name in found)
    assert {reason for reason, _, _ in found.values()} == {"exact_duplicate", "near_duplicate"}


@pytest.mark.parametrize("seed", range(4))
def test_components_are_those_of_all_pairs_compared(tmp_path, edited_documents, removals, seed):
    units = edited_documents(tmp_path, seed)
    documents = in_order(units)
    first = {}  # of each document, the first one that it is linked to
    scores = {}
    exact = set()
    for place, (name, words) in enumerate(documents):
        first[name] = name
        for other, known in documents[:place]:
            score = 1.0 if words == known else similarity(words, known) if min(len(words), len(known)) >= 5 else 0.0
            if score >= 0.75:
                label, further = sorted((first[name], first[other]), key=[row[0] for row in documents].index)
                first |= {each: label for each, found in first.items() if found == further}
                exact |= {name} if words == known else set()
                if words == known or {name, other}.isdisjoint(exact):  # copies are not compared: they have the score of a copy
                    scores[name] = max(score, scores.get(name, 0.0))
                    scores[other] = max(score if words != known else 0.0, scores.get(other, 0.0))
    found = removals(tmp_path, units, EVERY_PAIR.model_copy(update={"rule": "components"}))
    assert {name: row[:2] for name, row in found.items()} == {
        name: ("exact_duplicate" if name in exact else "near_duplicate", kept) for name, kept in first.items() if kept != name
    }
    assert all(found[name][2] == pytest.approx(scores[name], abs=1e-7) for name in found)
    assert len({kept for name, kept in first.items() if kept != name}) > 5


@pytest.mark.parametrize("order", ["abc", "acb", "bac", "cab", "bca", "cba"])
def test_components_on_a_chain_leave_the_first(tmp_path, documents_file, removals, order):
    texts = chain(random.Random(3))
    unit = documents_file(tmp_path, 0, [texts[name] for name in order])
    removed = removals(tmp_path, [unit], EVERY_PAIR.model_copy(update={"rule": "components"}))
    assert {name: row[:2] for name, row in removed.items()} == {f"r0-{row}": ("near_duplicate", "r0-0") for row in (1, 2)}
    # The one in the middle, even if it goes, is the nearest of either end; the score is that of the nearest, whoever stays.
    assert all(score > 0.75 for _, _, score in removed.values())


def test_without_verification_every_candidate_goes_and_has_no_score(tmp_path, documents_file, removals):
    rng = random.Random(9)
    words = prose(rng, 100)
    texts = [" ".join(words), " ".join(replaced(rng, words, 30)), " ".join(prose(rng)), " ".join(words)]
    unit = documents_file(tmp_path, 0, texts)
    assert removals(tmp_path, [unit]) == {"r0-3": ("exact_duplicate", "r0-0", 1.0)}
    shutil.rmtree(tmp_path / "out")
    assert removals(tmp_path, [unit], EVERY_PAIR.model_copy(update={"verify": False})) == {
        "r0-1": ("near_duplicate", "r0-0", None),
        "r0-3": ("exact_duplicate", "r0-0", 1.0),
    }


def test_words_in_another_unicode_form_are_other_words(tmp_path, documents_file, removals):
    composed = " ".join(f"caf\u00e9{number}" for number in range(60))
    combining = composed.replace("\u00e9", "e\u0301")
    removed = removals(tmp_path, [documents_file(tmp_path, 0, [composed, combining, combining + " more"])])
    assert removed == {"r0-1": ("exact_duplicate", "r0-0", 1.0)}  # the third differs from the first in every word, and the second is gone


def test_the_output_and_its_version_change_together(tmp_path, edited_documents, rows_of):
    deduplicate(edited_documents(tmp_path), Dedup(), tmp_path / "out", "local")
    rows = [rows_of(tmp_path / "out", kind) for kind in ("verdicts", "removed")]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert (document.VERSION, digest[:16]) == (2, "2cc111be310cf866")


def test_files_of_one_number_range_are_refused(tmp_path, documents_file):
    units = [documents_file(tmp_path / name, 4, ["a text"]) for name in ("one", "two")]
    with pytest.raises(ValueError, match=r"one.*two.*hold documents of one number range"):
        deduplicate([units[0], {**units[1], "id": "u00009"}], Dedup(document=EVERY_PAIR), tmp_path / "out", "local")


def test_verdicts_of_another_length_are_refused(tmp_path, documents_file):
    unit = documents_file(tmp_path, 0, ["a text", "another"])
    other = documents_file(tmp_path / "other", 0, ["a text"])
    with pytest.raises(ValueError, match=r"earlier.u00000.parquet: 1 verdicts for the 2 documents"):
        deduplicate([{**unit, "verdicts": other["verdicts"]}], Dedup(document=EVERY_PAIR), tmp_path / "out", "local")


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0},
        {"threshold": 1.1},
        {"bands": 0},
        {"rule": "all"},
        {"row": 8},
        {"preset": "c4"},
        {"shingle": {"size": 0}},
        {"shingle": {"unit": "bytes"}},
    ],
)
def test_a_configuration_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValidationError):
        DocumentDedup(**wrong)
