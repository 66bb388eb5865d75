from __future__ import annotations

import random
import re

import pytest

from headrace.dedup import counterparts as module
from headrace.dedup.counterparts import MISSED, Counterparts, banding, corpus_overlap
from headrace.dedup.exact import normalised
from headrace.dedup.minhash import candidate_probability
from headrace.dedup.overlap import overlap

WORDS = [f"word{number}" for number in range(3000)]


def prose(rng, count=80):
    return rng.choices(WORDS, k=count)


def edited(rng, words):
    """The words cut short, or with a run of them replaced, or copied with other white space."""
    if rng.random() < 0.3:
        return words[: rng.randrange(len(words) // 2, len(words))]
    start, count = rng.randrange(len(words)), rng.randrange(12)
    return [*words[:start], *prose(rng, count), *words[start + count :]]


def corpora(seed, documents=60):
    rng = random.Random(seed)
    a = [prose(rng, rng.randrange(20, 120)) for _ in range(documents)]
    b = [edited(rng, rng.choice(a)) if rng.random() < 0.7 else prose(rng) for _ in range(documents)]
    short = ["", "one", "one two three four", "!?"]
    return [*map(" ".join, a), *short], [*map("\n ".join, b), *short, "one two three five"]


def by_comparing_all(a, b, threshold):
    """What `counterparts` says, by comparing every document of B with every one of A."""
    texts = {normalised(text) for text in a}
    exact = near = 0
    tenths = [0] * 11
    for text in b:
        if normalised(text) in texts:
            exact += 1
            tenths[10] += 1
            continue
        found = [overlap(other, text, 5) for other in a if len(re.findall(r"\w+", other)) >= 5]
        best = max((row for row in found if row.b), key=lambda row: row.jaccard, default=None)  # max keeps the first of equals
        if best is not None and best.jaccard >= threshold:
            near += 1
            tenths[int(best.b_in_a * 10)] += 1
    return Counterparts(len(a), len(b), threshold, exact, near, tuple(tenths))


@pytest.mark.parametrize("threshold", [0.3, 0.75, 0.9, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_counterparts_are_those_of_comparing_all_pairs(threshold, seed):
    a, b = corpora(seed)
    expected = by_comparing_all(a, b, threshold)
    assert expected.exact > 4
    assert expected.near > 0 or threshold == 1
    assert corpus_overlap(a, b, threshold=threshold).documents == expected


def test_batches_and_chunks_do_not_show(monkeypatch):
    a, b = corpora(3)
    expected = corpus_overlap(a, b)
    monkeypatch.setattr(module, "BATCH_CHARS", 900)
    monkeypatch.setattr(module, "CHUNK_WORDS", 250)
    assert corpus_overlap(iter(a), iter(b)) == expected


def test_no_n_gram_crosses_a_document_s_end():
    found = corpus_overlap(["a b", "c d"], ["b c", "a b c d"], ns=(1, 2)).ngrams
    assert [(row.a, row.b, row.shared) for row in found] == [(4, 6, 4), (2, 4, 2)]


@pytest.mark.parametrize("a, b, counts", [([], [], (0, 0)), (["x"], [], (0, 0)), ([], ["a b c d e"], (0, 0)), (["x"], [" x\n"], (1, 0))])
def test_corpora_of_next_to_nothing(a, b, counts):
    found = corpus_overlap(a, b).documents
    assert (found.documents_a, found.documents_b) == (len(a), len(b))
    assert (found.exact, found.near) == counts


def test_a_document_that_a_repeats_many_times_is_met():
    text = " ".join(WORDS[:50])
    found = corpus_overlap([text] * 200, [text, f"{text} more", "something else that is not in there"] * 50).documents
    assert (found.exact, found.near, found.containment[10], found.containment[9]) == (50, 50, 50, 50)


def test_part_of_a_document_is_whole_in_its_counterpart():
    found = corpus_overlap([" ".join(WORDS[:100])], [" ".join(WORDS[:90])]).documents
    assert (found.exact, found.near, found.containment[10]) == (0, 1, 1)


@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.5, 0.75, 0.8, 0.95, 0.999, 1.0])
def test_bands_miss_one_pair_in_ten_thousand_at_most(threshold):
    bands, rows = banding(threshold)
    assert candidate_probability(threshold, bands, rows) >= 1 - MISSED
    assert bands == 1 or candidate_probability(threshold, bands - 1, rows) < 1 - MISSED
    assert bands * rows < 1000


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold = .*: a Jaccard similarity above 0, at most 1"):
        corpus_overlap(["a"], ["a"], threshold=threshold)
