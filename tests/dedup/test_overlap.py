from __future__ import annotations

import json
import re
from collections import Counter
from fractions import Fraction as F

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import artifact, schema
from headrace.dedup import overlap as module
from headrace.dedup.document import DocumentDedup
from headrace.dedup.exact import normalised
from headrace.dedup.levels import Dedup, deduplicate
from headrace.dedup.overlap import Overlap, WordStream, overlap, stream_overlap
from headrace.text.shingles import word_hashes

RATIOS = ("of_longer", "of_both", "a_in_b", "b_in_a", "jaccard")
POLISH = "Uwielbiam pić kawę", "Uwielbiam pić kawę Starbucks"
ENGLISH = "I love drinking coffee", "I love drinking Starbucks coffee"

# Few words, so that texts share some and repeat some; letters whose lower case is longer or depends on its place; no spaces; emoji.
WORDS = st.lists(
    st.sampled_from(["a", "A", "b", "żółć", "ŻÓŁĆ", "ΣΑΣ", "İ", "ß", "中文", "日本", "🙂", "e\u0301", "x_1", "’"]), max_size=14
)
GAPS = st.sampled_from([" ", ", ", "\n", "-", "\u3000", "🙂"])
TEXTS = st.one_of(
    st.tuples(GAPS, WORDS).map(lambda drawn: drawn[0].join(drawn[1])),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)


def ratios(found):
    return tuple(getattr(found, name) for name in RATIOS)


def grams(text, n):
    words = re.findall(r"\w+", text.lower())
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def expected(first, second, n):
    """By Python's own counters and sets, from lists of texts."""
    a, b = (sum((grams(text, n) for text in texts), Counter()) for texts in (first, second))
    return Overlap(n, a.total(), b.total(), (a & b).total(), len(a), len(b), len(set(a) & set(b)))


@pytest.mark.parametrize(
    "pair, n, by_hand",
    [
        (POLISH, 1, (F(3, 4), F(3, 7), F(1), F(3, 4), F(3, 4))),
        (POLISH, 2, (F(2, 3), F(2, 5), F(1), F(2, 3), F(2, 3))),
        (POLISH, 3, (F(1, 2), F(1, 3), F(1), F(1, 2), F(1, 2))),
        (ENGLISH, 1, (F(4, 5), F(4, 9), F(1), F(4, 5), F(4, 5))),
        (ENGLISH, 2, (F(1, 2), F(2, 7), F(2, 3), F(1, 2), F(2, 5))),
        (ENGLISH, 3, (F(1, 3), F(1, 5), F(1, 2), F(1, 3), F(1, 4))),
    ],
)
def test_the_worked_examples(pair, n, by_hand):
    assert ratios(overlap(*pair, n)) == by_hand
    shown = {F(1): "1"}
    row = [str(overlap(*pair, n).shared), *(shown.get(value, str(value)) for value in by_hand)]
    assert re.search(r"\n +" + str(n) + r" +\d +\d +" + " +".join(row) + r"\n", module.__doc__)


def test_fifty_percent_is_a_ratio_of_trigrams():
    half = {(n, name) for n in (1, 2, 3) for name in RATIOS if getattr(overlap(*POLISH, n), name) == F(1, 2)}
    assert half == {(3, "of_longer"), (3, "b_in_a"), (3, "jaccard")}
    words = overlap(*POLISH, 1)
    assert (round(words.of_longer * 100), round(words.of_both * 100)) == (75, 43)


def test_repeats_count_in_the_ratios_and_not_in_the_sets():
    found = overlap("to be to be to", "be to be", 1)  # to: 3 and 1, be: 2 and 2
    assert found == Overlap(1, 5, 3, 3, 2, 2, 2)
    assert ratios(found) == (F(3, 5), F(3, 8), F(1), F(1), F(1))
    assert ratios(overlap("to be to be to", "be to be", 2)) == (F(2, 4), F(2, 6), F(1), F(1), F(1))


@pytest.mark.parametrize(
    "a, b, n, found",
    [
        ("", "", 1, (None, None, None, None, None)),
        ("?!", "", 1, (None, None, None, None, None)),
        ("", "a word", 1, (F(0), F(0), None, F(0), F(0))),
        ("one two", "one two", 3, (None, None, None, None, None)),
        ("one two", "one two three", 3, (F(0), F(0), None, F(0), F(0))),
    ],
)
def test_what_has_no_words_is_undefined_and_not_nought(a, b, n, found):
    assert ratios(overlap(a, b, n)) == found


def test_an_n_gram_of_no_words_is_refused():
    with pytest.raises(ValueError, match="n = 0: an n-gram has at least one word"):
        overlap("a", "b", 0)


@settings(deadline=None)  # the first example waits for the compiler
@given(TEXTS, TEXTS, st.integers(1, 6))
def test_counts_are_those_of_counters_and_sets(a, b, n):
    found = overlap(a, b, n)
    assert found == expected([a], [b], n)
    back = overlap(b, a, n)
    assert (found.of_longer, found.of_both, found.jaccard) == (back.of_longer, back.of_both, back.jaccard)
    assert (found.a_in_b, found.b_in_a) == (back.b_in_a, back.a_in_b)
    assert all(value is None or 0 <= value <= 1 for value in ratios(found))
    assert found.of_both is None or found.of_both <= F(1, 2)
    contained = [value for value in (found.a_in_b, found.b_in_a) if value is not None]
    assert found.jaccard is None or found.jaccard <= min(contained)
    same = (F(1), F(1, 2), F(1), F(1), F(1)) if found.a else (None,) * 5
    assert ratios(overlap(a, a, n)) == same


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=6), st.lists(TEXTS, max_size=6), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
def test_neither_blocks_nor_partitions_nor_the_disk_show(first, second, n, block, partition):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_WORDS", block)
        patch.setattr(module, "PARTITION_NGRAMS", partition)
        patch.setattr(module, "SPOOL_BYTES", 40)
        with WordStream() as a, WordStream() as b:
            a.write(*word_hashes(first))
            for text in second:  # in parts, as a long file is
                for word in text.split():
                    b.write_part(word_hashes([word])[1])
                b.end_document()
            assert stream_overlap(a, b, n) == expected(first, second, n)
            assert a.count(n) == sum(grams(text, n).total() for text in first)
            offsets, words = a.documents(np.arange(len(first))[::-1])
            assert [offsets.tolist(), words.tolist()] == [found.tolist() for found in word_hashes(first[::-1])]


def test_score_is_the_jaccard_of_five_words(tmp_path):
    words = [f"word{number}" for number in range(60)]
    near = [" ".join([*words[:cut], "other", *words[cut + 1 :]]) for cut in (2, 30, 57)]
    texts = [" ".join(words), *near, " ".join(words).replace(" ", "\n"), " ".join(words[:50]), "Caf\u00e9 noir", "Cafe\u0301  noir"]
    nothing = pa.nulls(len(texts), pa.string())
    columns = [range(len(texts)), [f"d{row}" for row in range(len(texts))], texts, ["s"] * len(texts), nothing, nothing, nothing]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.DOCUMENTS)], schema=schema.DOCUMENTS)
    artifact.write_table(table, tmp_path / "u00000.parquet")
    unit = {"id": "u00000", "source": "s", "priority": 0, "documents": str(tmp_path / "u00000.parquet"), "verdicts": []}
    # 64 bands of a row: what reaches the threshold meets but for a chance below 1e-38.
    deduplicate([unit], Dedup(document=DocumentDedup(bands=64, rows=1)), tmp_path / "out", "local")
    removed = artifact.read_table(tmp_path / "out" / "removed" / "u00000.parquet").to_pylist()
    assert [row["id"] for row in removed] == ["d1", "d2", "d3", "d4", "d5", "d7"]
    for row in removed:
        gone, kept = (normalised(texts[int(name[1:])]) for name in (row["id"], row["kept_id"]))
        n = 5 if len(kept.split()) >= 5 else 1
        assert row["score"] == np.float32(float(overlap(gone, kept, n).jaccard))
    assert {row["score"] for row in removed} == {np.float32(value) for value in (1.0, 53 / 59, 51 / 61, 46 / 56)}


def test_similarity_as_people_see_it(shared):
    with zstandard.open(shared / "data" / "dedup" / "sentence_similarity.jsonl.zst", "rt", encoding="utf8") as lines:
        pairs = [json.loads(line) for line in lines]
    people = pl.Series([pair["score"] for pair in pairs]).rank().to_numpy()

    def correlation(n):
        """Spearman's."""
        found = pl.Series([float(overlap(pair["a"], pair["b"], n).jaccard) for pair in pairs]).rank().to_numpy()
        return np.corrcoef(people, found)[0, 1]

    # Measured 0.490, 0.471, 0.297, 0.173 on 375 pairs: a paraphrase keeps words more than their order.
    measured = [correlation(n) for n in (1, 2, 3, 5)]
    assert measured == sorted(measured, reverse=True)
    assert all(value > least for value, least in zip(measured, (0.45, 0.43, 0.25, 0.13)))
