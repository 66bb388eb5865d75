from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import normalizers

from headrace import artifact
from headrace.dedup import token_level as token_level_module
from headrace.dedup.document import DocumentDedup
from headrace.dedup.levels import Dedup, deduplicate
from headrace.dedup.sentence import SentenceDedup
from headrace.dedup.token_level import TokenDedup
from headrace.text.cuts import remaining

LINES = SentenceDedup(unit="line", span=1, min_words=0, min_units=1)


def tokens_that_go(sequences, window, keep):
    """By the definition: (sequence, position) of every token covered by a window that repeats another.

    `sequences`: lists of stretches of (place, token), in their order of preference; windows stay within a stretch.
    """
    occurrences = {}
    for number, stretches in enumerate(sequences):
        for stretch in stretches:
            for start in range(len(stretch) - window + 1):
                covered = stretch[start : start + window]
                content = tuple(token for _, token in covered)
                occurrences.setdefault(content, []).append([(number, place) for place, _ in covered])
    gone = set()
    for found in occurrences.values():
        if len(found) > 1:
            for covered in found[1:] if keep == "first" else found:
                gone.update(covered)
    return gone


def split_at(stretch, goes):
    """The stretch without the tokens at which `goes`: the stretches left."""
    left = [[]]
    for place, token in stretch:
        if goes(place):
            left.append([])
        else:
            left[-1].append((place, token))
    return [part for part in left if part]


def cuts_of(removed, levels):
    """doc -> sorted cuts of code points."""
    found = {}
    for row in removed:
        if row["level"] in levels and row["start"] is not None:
            found.setdefault(row["doc"], []).append((row["start"], row["end"]))
    return {doc: sorted(cuts) for doc, cuts in found.items()}


def covered(cuts):
    return {place for start, end in cuts for place in range(start, end)}


@pytest.fixture(scope="session")
def check(rows_of):
    """A function: hold the verdicts and cuts of a run against the definition; the cuts of each id, the ids dropped.

    `encode` gives the tokens of one code point.
    """

    def check(out, units, config, tokenizer, encode=str.encode):
        output = deduplicate(units, config, out, "local", tokenizer)
        verdicts, removed = rows_of(out, "verdicts"), rows_of(out, "removed")
        reasons = {row["doc"]: row["reason"] for row in verdicts}
        documents = []
        for unit in units:
            before = artifact.read_table(unit["verdicts"][0])["reason"].to_pylist()
            rows = artifact.read_table(unit["documents"]).to_pylist()
            documents += [(unit["priority"], row["doc"], row["id"], row["text"]) for row, why in zip(rows, before) if why is None]
        documents.sort()
        short = "short_after_token_dedup"
        standing = [row for row in documents if reasons[row[1]] in (None, short)]
        earlier = {doc: covered(cuts) for doc, cuts in cuts_of(removed, {"sentence"}).items()}
        characters = [[place for place, character in enumerate(text) for _ in encode(character)] for *_, text in standing]
        sequences = []
        for (_, doc, _, text), place_of in zip(standing, characters):
            tokens = list(enumerate(token for character in text for token in encode(character)))
            sequences.append(split_at(tokens, lambda place, doc=doc, place_of=place_of: place_of[place] in earlier.get(doc, ())))
        gone = tokens_that_go(sequences, config.token.min_tokens, config.token.keep)
        again = set()
        if config.token.passes == 2:
            joined = [
                [[each for stretch in stretches for each in stretch if (number, each[0]) not in gone]]
                for number, stretches in enumerate(sequences)
            ]
            again = tokens_that_go(joined, config.token.min_tokens, config.token.keep)
        expected = {}
        for number, (_, doc, _, _) in enumerate(standing):
            places = characters[number]
            kept = {place for token, place in enumerate(places) if (number, token) not in gone | again}
            if whole := set(places) - kept:
                expected[doc] = whole
        found = cuts_of(removed, {"token"})
        assert {doc: covered(cuts) for doc, cuts in found.items()} == expected
        names, texts = ({row[1]: row[column] for row in documents} for column in (2, 3))
        of_name = {names[doc]: texts[doc] for doc in names}
        for row in removed:
            assert row["id"] == names[row["doc"]]
            if row["level"] == "token" and row["start"] is not None:
                assert row["start"] < row["end"]
                if config.token.passes == 1 and encode is str.encode:
                    own, kept = (list(text.encode()) for text in (texts[row["doc"]], of_name[row["kept_id"]]))
                    size, first = config.token.min_tokens, len(texts[row["doc"]][: row["start"]].encode())
                    around = [own[start : start + size] for start in range(max(0, first - size + 1), first + 1)]
                    assert any(window == kept[start : start + size] for window in around for start in range(len(kept) - size + 1))
        for cuts in found.values():
            assert all(end <= start for (_, end), (start, _) in itertools.pairwise(cuts))
        dropped = set()
        for doc in expected:
            left = remaining(texts[doc], sorted(runs(expected[doc] | earlier.get(doc, set()))))
            few = len(re.findall(r"\w+", left.lower())) < config.token.min_words
            assert (reasons[doc] == short) == few
            dropped |= {names[doc]} if few else set()
        assert {row["id"] for row in removed if row["level"] == "token" and row["start"] is None} == dropped
        counters = artifact.totals(output)
        assert counters["tokens_cut"] == len(gone) + len(again)
        assert counters["tokens_encoded"] == sum(len(encode(character)) for *_, text in documents for character in text)
        if config.token.passes == 2:
            assert counters["tokens_cut_in_pass_2"] == len(again)
        return {names[doc]: cuts for doc, cuts in found.items()}, dropped

    return check


def runs(places):
    """Ranges of consecutive numbers."""
    for place in sorted(places):
        if place - 1 not in places:
            start = place
        if place + 1 not in places:
            yield start, place + 1


def token_level(**settings):
    return Dedup(document=None, token=TokenDedup(**{"min_words": 0, **settings}))


@pytest.mark.parametrize("keep", ["first", "none"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_what_goes_is_what_the_definition_says(tmp_path_factory, check, documents_file, tokenizer, keep, data):
    folder = tmp_path_factory.mktemp("run")
    alphabet = data.draw(st.sampled_from(["a", "ab", "ab ", "a\u0105\u0119", "ab\U0001f600\U0001f601", "\u4e00\u4e01\u4e02"]))
    texts = st.lists(st.text(alphabet, max_size=40), max_size=6)
    files = data.draw(st.lists(texts, min_size=1, max_size=3))
    units = [documents_file(folder, rank, found, priority=data.draw(st.integers(0, 1))) for rank, found in enumerate(files)]
    config = token_level(min_tokens=data.draw(st.integers(2, 9)), keep=keep, passes=data.draw(st.sampled_from([1, 2])), min_words=1)
    check(folder / "out", units, config, tokenizer)
    shutil.rmtree(folder)


PLANTED = TokenDedup(min_tokens=12, min_words=9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("keep", ["first", "none"])
@pytest.mark.parametrize("passes", [1, 2])
def test_planted_passages_are_cut_and_short_remains_dropped(tmp_path, check, shared_passages, tokenizer, seed, keep, passes):
    token = PLANTED.model_copy(update={"keep": keep, "passes": passes})
    cuts, dropped = check(tmp_path / "out", shared_passages(tmp_path, seed), Dedup(document=None, token=token), tokenizer)
    assert len(cuts) > 20
    assert len(dropped) > 5


@pytest.mark.parametrize("earlier", [{"document": DocumentDedup()}, {"sentence": LINES}, {"document": DocumentDedup(), "sentence": LINES}])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_level_looks_at_what_those_before_it_left(tmp_path, check, shared_passages, rows_of, tokenizer, earlier, passes):
    token = PLANTED.model_copy(update={"passes": passes})
    config = Dedup(**{"document": None, **earlier, "token": token})
    check(tmp_path / "out", shared_passages(tmp_path), config, tokenizer)
    levels = {row["level"] for row in rows_of(tmp_path / "out", "removed")}
    assert levels == {*earlier, "token"}


def test_a_passage_that_an_earlier_level_dropped_or_cut_is_not_the_first(tmp_path, check, documents_file, tokenizer):
    texts = ["0123456789", "0123456789", "one\nABCDEFGH", "two\nABCDEFGH", "_0123456789_", "abcABCDEFGHabc"]
    unit = documents_file(tmp_path, 0, texts, rejected={0})
    cuts, _ = check(tmp_path / "out", [unit], Dedup(document=None, sentence=LINES, token=TokenDedup(min_tokens=8, min_words=0)), tokenizer)
    assert cuts == {"r0-4": [(1, 11)], "r0-5": [(3, 11)]}


def test_priority_decides_where_a_passage_stays(tmp_path, check, documents_file, tokenizer):
    units = [documents_file(tmp_path, rank, [f"{rank}0123456789{rank}"], priority=priority) for rank, priority in enumerate([2, 1, 2])]
    cuts, _ = check(tmp_path / "out", units, token_level(min_tokens=8), tokenizer)
    assert cuts == {"r0-0": [(1, 11)], "r2-0": [(1, 11)]}


def test_each_part_of_a_cut_names_a_document_that_holds_it(tmp_path, check, documents_file, rows_of, tokenizer):
    unit = documents_file(tmp_path, 0, ["0123456789", "abcdefghij", "-0123456789abcdefghij-"])
    check(tmp_path / "out", [unit], token_level(min_tokens=8), tokenizer)
    removed = rows_of(tmp_path / "out", "removed")
    assert [(row["id"], row["start"], row["end"], row["kept_id"]) for row in removed] == [("r0-2", 1, 11, "r0-0"), ("r0-2", 11, 21, "r0-1")]
    assert {row["score"] for row in removed} == {1.0}


def test_what_repeats_itself_stays_once(tmp_path, check, documents_file, tokenizer):
    unit = documents_file(tmp_path, 0, ["a" * 1000, "ab" * 500, "ab" * 20, "", "a" * 7])
    for keep, first in (("first", {"r0-0": (1, 1000), "r0-1": (2, 1000)}), ("none", {"r0-0": (0, 1000), "r0-1": (0, 1000)})):
        cuts, _ = check(tmp_path / keep, [unit], token_level(min_tokens=8, keep=keep), tokenizer)
        assert {name: (found[0][0], found[-1][1]) for name, found in cuts.items()} == {**first, "r0-2": (0, 40)}


def test_cuts_fall_between_code_points(tmp_path, check, documents_file, tokenizer):
    smile, grin, moon = "\U0001f600", "\U0001f601", "\U0001f31d"  # F0 9F 98 80, F0 9F 98 81, F0 9F 8C 9D
    unit = documents_file(
        tmp_path, 0, [f"0123456{smile}", f"x0123456{grin}y", f"x23456{moon}y", "\u0105" * 4 + "abcd", "\u0105" * 4 + "abc"]
    )
    cuts, _ = check(tmp_path / "out", [unit], token_level(min_tokens=7), tokenizer)
    assert cuts == {"r0-1": [(1, 8)], "r0-2": [(1, 6)], "r0-4": [(0, 7)]}  # the first bytes of grin and moon are matched, they stay


def test_the_second_pass_finds_what_the_first_brought_together(tmp_path, check, documents_file, tokenizer):
    texts = ["0123456789", "abcd0123456789efgh", "ABabcdefghCD", "xyz"]
    unit = documents_file(tmp_path, 0, texts)
    cuts, _ = check(tmp_path / "one", [unit], token_level(min_tokens=8), tokenizer)
    assert cuts == {"r0-1": [(4, 14)]}
    cuts, _ = check(tmp_path / "two", [unit], token_level(min_tokens=8, passes=2), tokenizer)
    assert cuts == {"r0-1": [(4, 14)], "r0-2": [(2, 10)]}
    cuts, _ = check(tmp_path / "none", [unit], token_level(min_tokens=8, passes=2, keep="none"), tokenizer)
    assert cuts == {"r0-0": [(0, 10)], "r0-1": [(0, 4), (4, 14), (14, 18)], "r0-2": [(2, 10)]}


@pytest.mark.parametrize("large", [False, True])
def test_ids_beyond_sixteen_bits_and_tokenizers_that_do_not_spell(tmp_path, check, documents_file, shared_passages, byte_tokenizer, large):
    path = byte_tokenizer(tmp_path / "tokenizer.json", normalizers.Lowercase(), large)
    units = shared_passages(tmp_path)
    units.append(documents_file(tmp_path, 3, ["ABCDEFGHIJKLMN D\u0118B " * 2, "-abcdefghijklmn d\u0119b abc-"]))
    config = Dedup(document=None, sentence=LINES, token=PLANTED.model_copy(update={"passes": 2}))
    cuts, _ = check(tmp_path / "out", units, config, path, lambda character: character.lower().encode())
    assert {"r3-0", "r3-1"} <= set(cuts)
    tables = [artifact.read_table(file) for file in sorted((tmp_path / "out" / "ids").glob("*.parquet"))]
    assert not pa.concat_tables(tables)["spelled"].to_numpy().all()
    width = {
        path.stat().st_size // sum(table["tokens"].to_pylist())
        for path, table in zip(sorted((tmp_path / "out" / "ids").glob("*.bin")), tables)
    }
    assert width == {4 if large else 2}


def test_files_without_documents_and_documents_without_text(tmp_path, check, documents_file, tokenizer):
    units = [
        documents_file(tmp_path, 0, []),
        documents_file(tmp_path, 1, ["abcabc"], rejected={0}),
        documents_file(tmp_path, 2, ["", "", "abc"]),
    ]
    for passes in (1, 2):
        assert check(tmp_path / f"out-{passes}", units, token_level(min_tokens=3, passes=passes), tokenizer) == ({}, set())


@pytest.mark.parametrize("keep", ["first", "none"])
def test_a_long_document_is_looked_at_in_parts(tmp_path, check, shared_passages, tokenizer, monkeypatch, keep):
    monkeypatch.setattr(token_level_module, "CHUNK_WINDOWS", 5)
    config = Dedup(document=None, token=PLANTED.model_copy(update={"keep": keep}))
    cuts, _ = check(tmp_path / "out", shared_passages(tmp_path), config, tokenizer)
    assert len(cuts) > 20


def test_the_ids_are_part_of_what_is_left_behind(tmp_path, shared_passages, tokenizer):
    output = deduplicate(shared_passages(tmp_path), Dedup(document=None, token=PLANTED), tmp_path / "out", "local", tokenizer)
    for unit in output.units:
        kinds = ["ids/{}.bin", "ids/{}.parquet", "removed/{}.parquet", "verdicts/{}.parquet"]
        assert [entry["path"] for entry in unit["files"]] == [kind.format(unit["id"]) for kind in kinds]


def test_the_output_and_its_version_change_together(tmp_path, shared_passages, rows_of, tokenizer):
    config = Dedup(document=DocumentDedup(), sentence=LINES, token=PLANTED.model_copy(update={"passes": 2}))
    deduplicate(shared_passages(tmp_path), config, tmp_path / "out", "local", tokenizer)
    rows = [[row for row in rows_of(tmp_path / "out", "removed") if row["level"] == "token"]]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert (token_level_module.VERSION, digest[:16]) == (1, "534236bb9470148f")


@pytest.mark.parametrize(
    "wrong", [{"min_tokens": 1}, {"min_tokens": 5000}, {"keep": "last"}, {"passes": 3}, {"min_words": -1}, {"min_token": 50}]
)
def test_a_configuration_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValidationError):
        TokenDedup(**wrong)
