from __future__ import annotations

import hashlib
import json
import random
import re
import textwrap
import unicodedata

import pytest
import zstandard

from headrace import artifact, schema, shuffle
from headrace.config import ConfigError
from headrace.decontaminate import passes
from headrace.decontaminate.passes import ITEMS, decontaminate
from headrace.decontaminate.presets import PRESETS, Decontaminate
from headrace.decontaminate.verdicts import HITS, VERDICTS
from headrace.text.folding import folded_words

WORDS = [f"word{letter}{number}" for letter in "abcde" for number in range(400)]


def prose(rng, count):
    words = rng.choices(WORDS, k=count)
    return " ".join(word + rng.choice(["", "", "", ",", ".", "?"]) for word in words).capitalize()


def rows_of(folder, kind):
    return [row for path in sorted((folder / kind).glob("*.parquet")) for row in artifact.read_table(path).to_pylist()]


def run(out, units, benchmarks, **settings):
    """Decontaminate, check what holds for every corpus; id -> rows of `removed`."""
    config = Decontaminate(benchmarks=benchmarks, **settings)
    output = decontaminate(units, config, out, "local")
    verdicts, removed = rows_of(out, "verdicts"), rows_of(out, "removed")
    documents = [row for unit in sorted(units, key=lambda unit: unit["id"]) for row in artifact.read_table(unit["documents"]).to_pylist()]
    assert [row["doc"] for row in verdicts] == [row["doc"] for row in documents]
    text = {row["doc"]: row["text"] for row in documents}
    for record, unit in zip(output.units, sorted(units, key=lambda unit: unit["id"]), strict=True):
        assert record["id"] == unit["id"]
        assert record["rows_in"] == record["rows_out"] + sum(record["rejected"].values())
        assert [entry["path"].split("/")[0] for entry in record["files"]] == ["hits", "item-documents", "removed", "verdicts"]
        for kind, expected in (("hits", HITS), ("removed", schema.REMOVED), ("verdicts", VERDICTS)):
            assert artifact.read_table(out / kind / f"{unit['id']}.parquet").schema == expected
    assert [row["doc"] for row in removed if row["level"] == "document"] == [row["doc"] for row in verdicts if row["reason"]]
    for hit in rows_of(out, "hits"):
        assert " ".join(folded_words(text[hit["doc"]][hit["start"] : hit["end"]])) == hit["n_gram"]
    assert [entry["path"] for entry in output.files][-1] == "items/all.parquet"
    assert artifact.read_table(out / "items" / "all.parquet").schema == ITEMS
    found = {}
    for row in removed:
        found.setdefault(row["id"], []).append((row["level"], row["start"], row["end"], row["kept_id"], round(row["score"], 3)))
    return found


def items_of(out):
    return {row["item"]: row for row in artifact.read_table(out / "items" / "all.parquet").to_pylist()}


def without_punctuation(text):
    return re.sub(r"[^\w\s]", "", text).lower()


def first_half(text):
    words = text.split()
    return " ".join(words[: max(13, len(words) // 2)])


def wrapped(text):
    return textwrap.fill(text, 30)


def embedded(text):
    return f"As somebody said the other day, {text} And that was all that was said of it."


def quoted(text):
    return "".join(f"> {line}\n" for line in textwrap.wrap(text, 40))


VARIANTS = {
    "verbatim": str,
    "lowercase_no_punctuation": without_punctuation,
    "first_half": first_half,
    "wrapped": wrapped,
    "embedded": embedded,
    "quoted": quoted,
    "upper": str.upper,
    "nfd": lambda text: unicodedata.normalize("NFD", text),
    "html_spaces": lambda text: text.replace(" ", "\u00a0\n "),
}


@pytest.fixture
def questions():
    rng = random.Random(1)
    return [f"Qu'est-ce que {prose(rng, rng.randrange(14, 40))} à côté de {prose(rng, 5)}" for _ in range(12)]


@pytest.fixture
def benchmarks(tmp_path, write_set, questions):
    rng = random.Random(2)
    records = [{"id": f"q{row}", "question": text, "choices": [prose(rng, 3), prose(rng, 6)]} for row, text in enumerate(questions)]
    return [
        {"name": "set", "path": write_set(tmp_path / "set.jsonl", records)},
        {"name": "short", "path": write_set(tmp_path / "short.jsonl", [{"text": "Is this all there is?"}, {"text": "One 2 3"}])},
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_planted_variant_is_dropped_and_put_down_to_its_item(tmp_path, write_unit, benchmarks, questions, variant):
    rng = random.Random(3)
    texts = [f"{prose(rng, 80)}\n{VARIANTS[variant](question)}\n{prose(rng, 80)}" for question in questions]
    decoys = [f"{prose(rng, 80)}\n{' '.join(question.split()[:12])}\n{prose(rng, 80)}" for question in questions]
    removed = run(tmp_path / "out", [write_unit(tmp_path, 0, texts + decoys)], benchmarks)
    assert {name: rows[0][3] for name, rows in removed.items()} == {f"r0-{row}": f"set:q{row}" for row in range(12)}
    assert {row["item"]: row["documents"] for row in items_of(tmp_path / "out").values() if row["contaminated"]} == {
        f"q{row}": 1 for row in range(12)
    }


def test_verdicts_hits_and_items_say_what_was_found(tmp_path, write_unit, benchmarks, questions):
    rng = random.Random(4)
    text = f"{prose(rng, 20)} {questions[3]} {prose(rng, 20)}"
    units = [write_unit(tmp_path, 0, ["nothing", "is this all there is\nand more"]), write_unit(tmp_path, 1, [text])]
    removed = run(tmp_path / "out", units, benchmarks)
    of_question = len(questions[3].split()) - 12
    verdicts = {row["doc"]: row for row in rows_of(tmp_path / "out", "verdicts")}
    items = items_of(tmp_path / "out")
    share = round(of_question / items["q3"]["n_grams"], 3)
    assert removed == {"r0-1": [("document", None, None, "short:short#0", 1.0)], "r1-0": [("document", None, None, "set:q3", share)]}
    assert verdicts[0] == {
        "doc": 0, "reason": None, "hits": 0, "suppressed_hits": 0, "item": None, "share": None, "n_gram": None
    }  # fmt: skip
    found = verdicts[1 << 32]
    assert (found["reason"], found["hits"], found["item"]) == ("contaminated", of_question, "set:q3")
    assert found["n_gram"] == " ".join(folded_words(questions[3])[:13])
    hits = [hit for hit in rows_of(tmp_path / "out", "hits") if hit["benchmark"] == "set"]
    assert len(hits) == of_question
    assert {(hit["item"], hit["id"], hit["source"], hit["documents"], hit["items"]) for hit in hits} == {("q3", "r1-0", "s", 1, 1)}
    assert items["q3"]["hit_n_grams"] == of_question
    assert items["q3"]["text"].startswith(questions[3])
    assert (items["short#1"]["n_grams"], items["short#1"]["contaminated"]) == (0, False)
    totals = artifact.totals(decontaminate(units, Decontaminate(benchmarks=benchmarks), tmp_path / "out", "local"))
    assert (totals["items_of_set"], totals["contaminated_items_of_set"]) == (12, 1)
    assert (totals["items_of_short"], totals["contaminated_items_of_short"], totals["items_without_n_grams"]) == (2, 1, 1)
    assert totals["contaminated_items"] == 2
    assert totals["hits"] == of_question + 1
    assert totals["rejected"] == {"contaminated": 2}


def test_n_grams_of_many_documents_are_suppressed_over_all_units(tmp_path, write_unit, benchmarks, questions):
    rng = random.Random(5)
    copies = [f"{prose(rng, 150)} {questions[0]} {prose(rng, 150)}" for _ in range(12)]
    own = " ".join(questions[0].split()[:16])  # four 13-grams of the same question that one document more than the others has
    units = [write_unit(tmp_path, rank, [*copies[rank * 4 : rank * 4 + 4], prose(rng, 9)]) for rank in range(3)]
    units.append(write_unit(tmp_path, 3, [f"{prose(rng, 100)} {questions[1]} {prose(rng, 100)}", f"{prose(rng, 9)} {own}"]))
    removed = run(tmp_path / "ten", units, benchmarks, preset="gpt3-cut")
    assert set(removed) == {"r3-0"}
    found = items_of(tmp_path / "ten")
    assert not found["q0"]["contaminated"]
    assert found["q0"]["suppressed_n_grams"] == found["q0"]["hit_n_grams"] > 0
    hits = rows_of(tmp_path / "ten", "hits")
    assert {hit["suppressed"] for hit in hits if hit["item"] == "q0"} == {True}
    assert sorted({hit["documents"] for hit in hits if hit["item"] == "q0"}) == [12, 13]
    # Thirteen copies are contamination, too: what many documents have is only then no sign of it when it is no benchmark's.
    everything = run(tmp_path / "null", units, benchmarks, preset="gpt3-cut", max_documents=None)
    assert len(everything) == 14
    assert run(tmp_path / "twelve", units, benchmarks, preset="gpt3-cut", max_documents=12).keys() == everything.keys() - {"r3-1"}


def test_what_earlier_stages_took_is_not_there(tmp_path, write_unit, benchmarks, questions):
    start = len("before ")
    text = f"before {questions[0]} behind"
    unit = write_unit(tmp_path, 0, [text, text, text], rejected={1}, cuts=[(2, start, len(text) - 7)])
    assert set(run(tmp_path / "out", [unit], benchmarks)) == {"r0-0"}
    assert [row["hits"] > 0 for row in rows_of(tmp_path / "out", "verdicts")] == [True, False, False]
    del unit["removed"]  # a stage before it that cuts nothing
    assert set(run(tmp_path / "other", [unit], benchmarks)) == {"r0-0", "r0-2"}


def test_an_item_in_pieces_over_several_documents_is_marked_and_no_document_dropped(tmp_path, write_unit, benchmarks, questions):
    words = questions[0].split()
    third = len(words) // 3
    texts = [" ".join(words[max(0, place - 7) : place + third]) for place in (0, third, 2 * third, len(words) - 3)]
    fields = {"fields": ["question"]}
    removed = run(tmp_path / "out", [write_unit(tmp_path, 0, texts)], [{**benchmarks[0], **fields}], preset="palm-ratio")
    assert removed == {}
    found = items_of(tmp_path / "out")["q0"]
    assert found["hit_n_grams"] == found["n_grams"]
    assert (found["contaminated"], found["documents"]) == (True, 0)


def test_no_documents_and_files_without_documents(tmp_path, write_unit, benchmarks):
    assert run(tmp_path / "none", [], benchmarks) == {}
    assert run(tmp_path / "empty", [write_unit(tmp_path, 0, []), write_unit(tmp_path, 1, ["x"], rejected={0})], benchmarks) == {}


def test_an_evaluation_set_that_cannot_be_read_ends_it(tmp_path, write_unit):
    (tmp_path / "set.jsonl").write_text('{"q": "a question"}\n{')
    with pytest.raises(ConfigError, match=r"decontaminate\.benchmarks\.set: .*set\.jsonl: byte 20: no JSON"):
        run(tmp_path / "out", [write_unit(tmp_path, 0, ["x"])], [{"name": "set", "path": str(tmp_path / "set.jsonl")}])


def planted(folder, write_unit, questions, ranks=3, seed=6):
    """Documents with whole, half and several questions, blank lines, cuts of an earlier stage; as so many files."""
    rng = random.Random(seed)
    texts, rejected, cuts, ids = ([[] for _ in range(ranks)] for _ in range(4))
    for number in range(90):
        parts = []
        for _ in range(rng.randrange(1, 6)):
            kind = rng.random()
            question = rng.choice(questions) if kind < 0.35 else None
            parts.append(rng.choice(list(VARIANTS.values()))(question) if question else prose(rng, rng.randrange(5, 120)))
        text = "".join(part + rng.choice([" ", "\n", "\n\n"]) for part in parts)
        rank = number * ranks // 90
        row = len(texts[rank])
        if rng.random() < 0.1:
            rejected[rank].append(row)
        if rng.random() < 0.2:
            start = rng.randrange(len(text))
            cuts[rank].append((row, start, min(len(text), start + 60)))
        texts[rank].append(text)
        ids[rank].append(f"d{number}")
    return [
        write_unit(folder / f"of-{ranks}", rank, texts[rank], rejected[rank], cuts[rank], rng.randrange(1, 30), ids[rank])
        for rank in range(ranks)
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_neither_the_size_nor_the_order_of_units_nor_the_partitions_change_what_is_removed(
    tmp_path, write_unit, benchmarks, questions, monkeypatch, preset
):
    expected = run(tmp_path / "out", planted(tmp_path, write_unit, questions), benchmarks, preset=preset)
    assert len(expected) > 10 or preset == "paragraph-ratio"
    assert len(expected) > 3
    assert run(tmp_path / "reversed", planted(tmp_path, write_unit, questions)[::-1], benchmarks, preset=preset) == expected
    monkeypatch.setattr(shuffle, "PARTITION_BYTES", 2000)
    monkeypatch.setattr("headrace.verdicts.BATCH_BYTES", 2000)
    for ranks in (1, 7):
        out = tmp_path / f"out-{ranks}"
        assert run(out, planted(tmp_path, write_unit, questions, ranks), benchmarks, preset=preset) == expected
        assert items_of(out) == items_of(tmp_path / "out")
    assert len(list((out / "work" / "held").glob("*.parquet"))) > 2


def contents(folder):
    kinds = ("verdicts", "removed", "hits", "item-documents", "items", "index")
    return {f"{kind}/{path.name}": path.read_bytes() for kind in kinds for path in sorted((folder / kind).iterdir())}


def test_a_run_killed_in_any_phase_ends_in_the_same_bytes(tmp_path, write_unit, benchmarks, questions, killed_copies, monkeypatch):
    monkeypatch.setattr(shuffle, "PARTITION_BYTES", 4000)
    units = planted(tmp_path, write_unit, questions)
    config = Decontaminate(benchmarks=benchmarks, preset="gpt3-cut")
    whole = tmp_path / "whole"
    output = decontaminate(units, config, whole, "local")
    expected = contents(whole)
    killed = killed_copies(whole, 1, 4, ".aside-scan-u00001-1234")
    assert len(killed) >= 8
    for folder in killed:
        assert decontaminate(units, config, folder, "local") == output
        assert contents(folder) == expected


def test_the_output_and_its_version_change_together(tmp_path, write_unit, benchmarks, questions):
    units = planted(tmp_path, write_unit, questions)
    rows = []
    for preset in PRESETS:
        run(tmp_path / preset, units, benchmarks, preset=preset)
        rows.append([rows_of(tmp_path / preset, kind) for kind in ("verdicts", "removed", "hits", "items")])
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert (passes.VERSION, digest[:16]) == (101, "d55f64547ee481fa")


def read_lines(path):
    with zstandard.open(path, "rt", encoding="utf8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def corpus(shared):
    """Texts of the real corpus by id, and what was planted in it."""
    files = sorted(path for path in (shared / "data" / "corpus").glob("*.zst") if "truth" not in path.name)
    truth = read_lines(shared / "data" / "corpus" / "truth.jsonl.zst")
    return {record["id"]: record["text"] for path in files for record in read_lines(path)}, truth


@pytest.fixture(scope="module")
def evaluation_sets(shared):
    files = sorted((shared / "data" / "eval").glob("*.jsonl.zst"))
    return [{"name": path.name.split(".")[0], "path": str(path)} for path in files]


def test_what_was_planted_in_the_corpus_is_found_and_nothing_else(tmp_path, write_unit, corpus, evaluation_sets):
    texts, truth = corpus
    names = list(texts)
    units = [write_unit(tmp_path, rank, [texts[name] for name in names[rank::4]], ids=names[rank::4]) for rank in range(4)]
    removed = run(tmp_path / "out", units, evaluation_sets)
    planted_in = {row["id"]: row for row in truth if row["kind"] == "contaminated"}
    decoys = {row["id"] for row in truth if row["kind"] == "contamination_decoy"}
    for how in ("verbatim", "lowercase_no_punctuation", "first_half"):
        of = {name for name, row in planted_in.items() if row["how"] == how}
        assert len(of & removed.keys()) >= 0.98 * len(of) > 30
    # The Hound of the Baskervilles is no plant, but LAMBADA took three of its passages from that very novel.
    assert removed.keys() - planted_in.keys() == {"s004918"}
    assert {hit["benchmark"] for hit in rows_of(tmp_path / "out", "hits") if hit["id"] == "s004918"} == {"lambada"}
    assert not removed.keys() & decoys
    # Each is put down to the set that it was taken from, unless another set has the same question.
    same = sum(rows[0][3].split(":")[0] == planted_in[name]["eval"] for name, rows in removed.items() if name in planted_in)
    assert same >= 0.95 * len(planted_in)


@pytest.mark.parametrize("variant", ["wrapped", "embedded", "quoted"])
def test_variants_of_the_planted_questions_in_real_prose(tmp_path, write_unit, corpus, evaluation_sets, variant):
    texts, truth = corpus
    used = {row["eval"] for row in truth if row["kind"] == "contaminated"}
    sets = [each for each in evaluation_sets if each["name"] in used]
    clean = [text for name, text in texts.items() if name not in {row["id"] for row in truth}]
    rng = random.Random(7)
    planted_in = []
    for row in truth:
        if row["kind"] == "contaminated" and row["how"] == "verbatim":
            host = rng.choice(clean)[:4000]
            cut = host.rfind(" ", 0, len(host) // 2) + 1
            planted_in.append(f"{host[:cut]} {VARIANTS[variant](row['question'])} {host[cut:]}")
    removed = run(tmp_path / "out", [write_unit(tmp_path, 0, planted_in + rng.sample(clean, 50))], sets)
    assert {f"r0-{row}" for row in range(len(planted_in))} == set(removed)
