from __future__ import annotations

import hashlib
import json
import random
import shutil

import pyarrow as pa
import pytest
import zstandard
from pydantic import ValidationError

from headrace import artifact, schema, shuffle
from headrace.dedup import document
from headrace.dedup.document import DocumentDedup
from headrace.dedup.judge import VERDICTS
from headrace.dedup.levels import Dedup, deduplicate
from headrace.text.shingles import shingle_sets

# With a row a band, two documents meet unless they disagree in 64 independent values: below 1e-38 at the threshold.
EVERY_PAIR = DocumentDedup(bands=64, rows=1)
WORDS = [f"word{number}" for number in range(5000)]


def prose(rng, count=120):
    return rng.choices(WORDS, k=count)


def replaced(rng, words, count):
    """`words` with `count` of them, in a run, replaced: |run| + 4 shingles of each text are its own."""
    start = rng.randrange(len(words) - count)
    return [*words[:start], *prose(rng, count), *words[start + count :]]


def write_unit(folder, rank, texts, rejected=(), priority=0):
    """A documents file and, beside it, the verdicts of an earlier stage that rejects some of its rows."""
    docs = [(rank << 32) + row for row in range(len(texts))]
    nothing = pa.nulls(len(texts), pa.string())
    columns = [docs, [f"r{rank}-{row}" for row in range(len(texts))], texts, ["s"] * len(texts), nothing, nothing, nothing]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.DOCUMENTS)], schema=schema.DOCUMENTS)
    name = f"u{rank:05d}"
    artifact.write_table(table, folder / "documents" / f"{name}.parquet", row_group_rows=7)
    reasons = pa.array(["gopher" if row in rejected else None for row in range(len(texts))], pa.string())
    artifact.write_table(pa.table({"doc": pa.array(docs, pa.int64()), "reason": reasons}), folder / "earlier" / f"{name}.parquet")
    paths = {"documents": str(folder / "documents" / f"{name}.parquet"), "verdicts": [str(folder / "earlier" / f"{name}.parquet")]}
    return {"id": name, "source": "s", "priority": priority, **paths}


def rows_of(folder, kind):
    return [row for path in sorted((folder / kind).iterdir()) for row in artifact.read_table(path).to_pylist()]


def run(folder, units, config=EVERY_PAIR):
    """id -> (reason, kept_id, score) of what was removed, after the checks that hold for every corpus."""
    out = folder / "out"
    records = deduplicate(units, Dedup(document=config), out, "local").units
    verdicts, removed = rows_of(out, "verdicts"), rows_of(out, "removed")
    documents = [row for unit in units for row in artifact.read_table(unit["documents"]).to_pylist()]
    assert [row["doc"] for row in verdicts] == sorted(row["doc"] for row in documents)
    assert [row["doc"] for row in removed] == [row["doc"] for row in verdicts if row["reason"]]
    names = {row["doc"]: row["id"] for row in documents}
    assert all(row["id"] == names[row["doc"]] and row["level"] == "document" and row["start"] is row["end"] is None for row in removed)
    for record, unit in zip(records, sorted(units, key=lambda unit: unit["id"])):
        assert record["id"] == unit["id"]
        assert record["rows_in"] == record["rows_out"] + sum(record["rejected"].values())
        assert [entry["path"] for entry in record["files"]] == [f"{kind}/{unit['id']}.parquet" for kind in ("removed", "verdicts")]
        for kind, expected in (("removed", schema.REMOVED), ("verdicts", VERDICTS)):
            assert artifact.read_table(out / kind / f"{unit['id']}.parquet").schema == expected
    score = {row["doc"]: row["score"] for row in verdicts}
    assert all(row["score"] == score[row["doc"]] for row in removed)
    return {row["id"]: (next(v["reason"] for v in verdicts if v["doc"] == row["doc"]), row["kept_id"], row["score"]) for row in removed}


def groups(folder):
    return {row["doc"]: (row["group"], row["content"]) for row in rows_of(folder / "out", "verdicts")}


def similarity(one, other):
    """Jaccard of the five-word shingles of two lists of words, by Python's own sets."""
    sets = [{tuple(words[start : start + 5]) for start in range(len(words) - 4)} for words in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_exact_copies_differ_in_white_space_and_unicode_form_only(tmp_path):
    text = "Caf\u00e9 au lait, please, and be quick about it."
    texts = [text, f"  {text}\n", text.replace("\u00e9", "e\u0301").replace(" ", "\u00a0"), "another text of more than five words"]
    removed = run(tmp_path, [write_unit(tmp_path, 0, texts)])
    assert removed == {"r0-1": ("exact_duplicate", "r0-0", 1.0), "r0-2": ("exact_duplicate", "r0-0", 1.0)}
    found = groups(tmp_path)
    assert found[0] == found[1] == found[2]
    assert found[3][0] == 3


def test_texts_that_differ_in_case_or_punctuation_are_near_duplicates_with_equal_words(tmp_path):
    text = "Stra\u00dfe Caf\u00e9 au lait, please, and be quick about it."
    removed = run(tmp_path, [write_unit(tmp_path, 0, [text, text.upper().replace("SS", "\u1e9e"), text.replace(",", "!")])])
    assert removed == {"r0-1": ("near_duplicate", "r0-0", 1.0), "r0-2": ("near_duplicate", "r0-0", 1.0)}


@pytest.mark.parametrize("text", ["", " \n\t", "!?", "word", "one two three four"])
def test_texts_under_five_words_take_part_in_exact_deduplication_only(tmp_path, text):
    removed = run(tmp_path, [write_unit(tmp_path, 0, [text, text + " .", text + " ", "x"])])
    assert removed == {"r0-2": ("exact_duplicate", "r0-0", 1.0)}


def test_a_thousand_copies_of_one_document_leave_one(tmp_path):
    rng = random.Random(1)
    text = " ".join(prose(rng))
    units = [write_unit(tmp_path, rank, [text] * 250 + [" ".join(prose(rng))]) for rank in range(4)]
    removed = run(tmp_path, units, DocumentDedup())
    assert len(removed) == 999
    assert set(removed.values()) == {("exact_duplicate", "r0-0", 1.0)}


def test_a_thousand_near_copies_leave_one(tmp_path):
    rng = random.Random(2)
    words = prose(rng, 400)
    units = [write_unit(tmp_path, rank, [" ".join(replaced(rng, words, 1)) for _ in range(500)]) for rank in range(2)]
    removed = run(tmp_path, units, DocumentDedup())
    assert len(removed) == 999  # similarity 0.95 or more with r0-0, which every bucket of theirs pairs them with
    assert {reason for reason, _, _ in removed.values()} == {"near_duplicate"}
    assert {found[0] for found in groups(tmp_path).values()} == {0}


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
def test_dominated_on_a_chain(tmp_path, order, expected):
    texts = chain(random.Random(3))
    removed = run(tmp_path, [write_unit(tmp_path, 0, [texts[name] for name in order])])
    assert set(removed) == {f"r0-{row}" for row in expected}
    for row, kept in expected.items():
        if kept is not None:
            assert removed[f"r0-{row}"][1] == f"r0-{kept}"
    assert {found for found, _ in groups(tmp_path).values()} == {0}


def test_the_most_similar_of_several_better_documents_is_named(tmp_path):
    rng = random.Random(4)
    words = prose(rng, 200)
    far, near = replaced(rng, words, 12), replaced(rng, words, 2)
    score = similarity(near, words)
    assert score > similarity(far, words) > 0.75
    removed = run(tmp_path, [write_unit(tmp_path, 0, [" ".join(far), " ".join(near), " ".join(words)])])
    assert removed["r0-2"][:2] == ("near_duplicate", "r0-1")
    assert removed["r0-2"][2] == pytest.approx(score, abs=1e-7)


def test_of_equal_scores_the_first_by_priority_is_named(tmp_path):
    text = "one two three four five six"
    texts = [text.upper(), text.title(), text]
    units = [write_unit(tmp_path, rank, [texts[rank]], priority=priority) for rank, priority in enumerate([3, 1, 2])]
    removed = run(tmp_path, units)
    assert removed == {"r0-0": ("near_duplicate", "r1-0", 1.0), "r2-0": ("near_duplicate", "r1-0", 1.0)}
    # A group is named after its smallest document, whoever stays.
    assert {found for found, _ in groups(tmp_path).values()} == {0}
    assert len({content for _, content in groups(tmp_path).values()}) == 1


def test_priority_decides_among_exact_copies(tmp_path):
    text = "one two three four five six"
    units = [write_unit(tmp_path, rank, [text], priority=priority) for rank, priority in enumerate([1, 0, 1])]
    assert run(tmp_path, units) == {"r0-0": ("exact_duplicate", "r1-0", 1.0), "r2-0": ("exact_duplicate", "r1-0", 1.0)}


def test_documents_rejected_before_play_no_part(tmp_path):
    rng = random.Random(5)
    words = prose(rng)
    texts = [" ".join(words), " ".join(words), " ".join(replaced(rng, words, 3)), " ".join(replaced(rng, words, 3))]
    removed = run(tmp_path, [write_unit(tmp_path, 0, texts, rejected={0, 2})])
    assert set(removed) == {"r0-3"}
    assert removed["r0-3"][:2] == ("near_duplicate", "r0-1")
    found = groups(tmp_path)
    assert found[0] == (0, 0)
    assert found[2] == (2, 0)
    assert found[1] == found[3]
    assert found[1][0] == 1


def test_files_without_documents_and_without_kept_documents(tmp_path):
    text = "one two three four five six"
    units = [write_unit(tmp_path, 0, []), write_unit(tmp_path, 1, [text], rejected={0}), write_unit(tmp_path, 2, [text])]
    assert run(tmp_path, units) == {}
    assert deduplicate([], Dedup(document=EVERY_PAIR), tmp_path / "none", "local").units == []


def planted(folder, seed=6):
    """Three files of originals, exact copies and edited copies across files, some rejected before, priorities that differ."""
    rng = random.Random(seed)
    originals = [prose(rng, rng.randrange(5, 150)) for _ in range(30)]
    texts, rejected = [[], [], []], [set(), set(), set()]
    for _ in range(120):
        words = list(rng.choice(originals))
        if (kind := rng.random()) < 0.6:
            words = replaced(rng, words, rng.randrange(1, max(2, len(words) // 8)))
        elif kind < 0.7:
            words = prose(rng, rng.randrange(4))
        rank = rng.randrange(3)
        if rng.random() < 0.1:
            rejected[rank].add(len(texts[rank]))
        texts[rank].append(rng.choice([" ", "  "]).join(words) + rng.choice(["", "\n"]))
    return [write_unit(folder, rank, texts[rank], rejected[rank], priority) for rank, priority in enumerate([1, 0, 1])]


def in_order(units):
    """(id, words) of the documents that reach deduplication, the preferred first."""
    documents = []
    for unit in units:
        reasons = artifact.read_table(unit["verdicts"][0])["reason"].to_pylist()
        rows = artifact.read_table(unit["documents"]).to_pylist()
        documents += [(unit["priority"], row["doc"], row["id"], row["text"].split()) for row, why in zip(rows, reasons) if why is None]
    return [row[2:] for row in sorted(documents, key=lambda row: row[:2])]


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_are_those_of_all_pairs_compared(tmp_path, seed):
    units = planted(tmp_path, seed)
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
    found = run(tmp_path, units)
    assert {name: row[:2] for name, row in found.items()} == {name: row[:2] for name, row in expected.items()}
    assert all(found[name][2] == pytest.approx(expected[name][2], abs=1e-7) for name in found)
    assert {reason for reason, _, _ in found.values()} == {"exact_duplicate", "near_duplicate"}


@pytest.mark.parametrize("seed", range(4))
def test_components_are_those_of_all_pairs_compared(tmp_path, seed):
    units = planted(tmp_path, seed)
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
    found = run(tmp_path, units, DocumentDedup(bands=64, rows=1, rule="components"))
    assert {name: row[:2] for name, row in found.items()} == {
        name: ("exact_duplicate" if name in exact else "near_duplicate", kept) for name, kept in first.items() if kept != name
    }
    assert all(found[name][2] == pytest.approx(scores[name], abs=1e-7) for name in found)
    assert len({kept for name, kept in first.items() if kept != name}) > 5


@pytest.mark.parametrize("order", ["abc", "acb", "bac", "cab", "bca", "cba"])
def test_components_on_a_chain_leave_the_first(tmp_path, order):
    texts = chain(random.Random(3))
    removed = run(tmp_path, [write_unit(tmp_path, 0, [texts[name] for name in order])], DocumentDedup(bands=64, rows=1, rule="components"))
    assert {name: row[:2] for name, row in removed.items()} == {f"r0-{row}": ("near_duplicate", "r0-0") for row in (1, 2)}
    # The one in the middle, even if it goes, is the nearest of either end; the score is that of the nearest, whoever stays.
    assert all(score > 0.75 for _, _, score in removed.values())


def test_without_verification_every_candidate_goes_and_has_no_score(tmp_path):
    rng = random.Random(9)
    words = prose(rng, 100)
    texts = [" ".join(words), " ".join(replaced(rng, words, 30)), " ".join(prose(rng)), " ".join(words)]
    assert run(tmp_path, [write_unit(tmp_path, 0, texts)], DocumentDedup(bands=64, rows=1)) == {"r0-3": ("exact_duplicate", "r0-0", 1.0)}
    shutil.rmtree(tmp_path / "out")
    assert run(tmp_path, [write_unit(tmp_path, 0, texts)], DocumentDedup(bands=64, rows=1, verify=False)) == {
        "r0-1": ("near_duplicate", "r0-0", None),
        "r0-3": ("exact_duplicate", "r0-0", 1.0),
    }


def test_words_in_another_unicode_form_are_other_words(tmp_path):
    composed = " ".join(f"caf\u00e9{number}" for number in range(60))
    combining = composed.replace("\u00e9", "e\u0301")
    removed = run(tmp_path, [write_unit(tmp_path, 0, [composed, combining, combining + " more"])])
    assert removed == {"r0-1": ("exact_duplicate", "r0-0", 1.0)}  # the third differs from the first in every word, and the second is gone


def contents(folder):
    return {f"{kind}/{path.name}": path.read_bytes() for kind in ("verdicts", "removed") for path in sorted((folder / kind).iterdir())}


def test_neither_the_order_of_units_nor_the_partitions_change_a_byte(tmp_path, monkeypatch):
    units = planted(tmp_path)
    records = deduplicate(units, Dedup(document=EVERY_PAIR), tmp_path / "out", "local").units
    expected = contents(tmp_path / "out")
    monkeypatch.setattr(shuffle, "PARTITION_BYTES", 6000)
    assert deduplicate(units[::-1], Dedup(document=EVERY_PAIR), tmp_path / "again", "local").units == records
    assert len(list((tmp_path / "again" / "work" / "candidates").glob("*.parquet"))) > 10
    assert contents(tmp_path / "again") == expected


def test_a_run_killed_in_any_phase_ends_in_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle, "PARTITION_BYTES", 8000)
    units = planted(tmp_path)
    whole = tmp_path / "whole"
    records = deduplicate(units, Dedup(document=EVERY_PAIR), whole, "local")
    expected = contents(whole)
    files = [path for path in whole.rglob("*") if path.is_file()]
    made = sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.suffix == ".json"))  # a record after what it records
    assert len(made) > 60  # and a kill after every ninth
    for last in range(3, len(made), 9):
        # As a kill leaves it: what was made later is absent, and a file that was being written lies aside.
        killed = tmp_path / f"killed-{last}"
        for path in made[:last]:
            copy = killed / path.relative_to(whole)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        aside = killed / "work" / ".aside-verify-u00001-1234"
        aside.mkdir(parents=True)
        (aside / "half.parquet").write_bytes(b"PAR1")
        assert deduplicate(units, Dedup(document=EVERY_PAIR), killed, "local") == records
        assert contents(killed) == expected


def test_the_output_and_its_version_change_together(tmp_path):
    deduplicate(planted(tmp_path), Dedup(), tmp_path / "out", "local")
    rows = [rows_of(tmp_path / "out", kind) for kind in ("verdicts", "removed")]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert (document.VERSION, digest[:16]) == (2, "2cc111be310cf866")


def test_files_of_one_number_range_are_refused(tmp_path):
    units = [write_unit(tmp_path / name, 4, ["a text"]) for name in ("one", "two")]
    with pytest.raises(ValueError, match=r"one.*two.*hold documents of one number range"):
        deduplicate([units[0], {**units[1], "id": "u00009"}], Dedup(document=EVERY_PAIR), tmp_path / "out", "local")


def test_verdicts_of_another_length_are_refused(tmp_path):
    unit = write_unit(tmp_path, 0, ["a text", "another"])
    other = write_unit(tmp_path / "other", 0, ["a text"])
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


def read_lines(path):
    with zstandard.open(path, "rt", encoding="utf8") as lines:
        return [json.loads(line) for line in lines]


def removed_from(folder, files):
    """The records of real files as documents with ids of their own; id -> kept id of what goes by the defaults."""
    names, units = {}, []
    for rank, path in enumerate(files):
        records = read_lines(path)
        names.update({f"r{rank}-{row}": record["id"] for row, record in enumerate(records)})
        units.append(write_unit(folder, rank, [record["text"] for record in records]))
    return {names[gone]: names[kept] for gone, (_, kept, _) in run(folder, units, DocumentDedup()).items()}


def test_the_planted_duplicates_of_the_corpus_are_found(tmp_path, shared):
    files = sorted(path for path in (shared / "data" / "corpus").glob("*.zst") if "truth" not in path.name)
    removed = removed_from(tmp_path, files)
    truth = read_lines(shared / "data" / "corpus" / "truth.jsonl.zst")
    exact = [pair for pair in truth if pair["kind"] == "exact_duplicate"]
    near = [pair for pair in truth if pair["kind"] == "near_duplicate" and pair["word5_jaccard"] >= 0.8]
    assert len(exact) == 150
    assert all(pair["id"] in removed or pair["of"] in removed for pair in exact)
    assert sum(pair["id"] in removed or pair["of"] in removed for pair in near) >= 0.95 * len(near) > 40


def test_graded_edits_are_found_by_their_similarity(tmp_path, shared):
    path = shared / "data" / "dedup" / "graded_edits.jsonl.zst"
    removed = removed_from(tmp_path, [path])
    texts = {record["id"]: record["text"] for record in read_lines(path)}
    truth = read_lines(path.with_name("graded_edits.truth.jsonl.zst"))
    high = [pair for pair in truth if pair["word5_jaccard"] >= 0.8]
    assert sum(pair["a"] in removed or pair["b"] in removed for pair in high) >= 0.95 * len(high) > 90
    labelled = {frozenset((pair["a"], pair["b"])) for pair in truth}
    for gone, kept in removed.items():
        offsets, shingles = shingle_sets([texts[gone], texts[kept]])
        first, second = set(shingles[: offsets[1]].tolist()), set(shingles[offsets[1] :].tolist())
        assert frozenset((gone, kept)) in labelled or len(first & second) / len(first | second) >= 0.75
