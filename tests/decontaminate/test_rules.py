from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from headrace.decontaminate.index import load_postings
from headrace.decontaminate.match import find
from headrace.decontaminate.presets import Decontaminate
from headrace.decontaminate.rules import Evidence, cut_spans, judge_document
from headrace.decontaminate.scan import paragraphs_of
from headrace.text.cuts import remaining

FILLER = "Rain fell on the mill for 9 days, and nobody went out. "  # 55 code points


def rules(preset, **settings):
    return Decontaminate(benchmarks=[{"name": "set", "path": "set.jsonl"}], preset=preset, **settings).rules()


@pytest.fixture
def judged(index_of):
    """A function: the judgement of one text against items, and the spans cut out of it (None where it is dropped)."""

    def judge(items, text, preset, gone=(), held=None, **settings):
        given = rules(preset, **settings)
        index, folder = index_of(items, given["n"])
        finds, _ = find(index, pa.array([text]))
        documents = np.zeros(len(index.hashes), np.int64)
        documents[finds.gram] = 1 if held is None else held
        evidence = Evidence.of(index.words, documents, load_postings(folder), given["max_documents"])
        table = paragraphs_of(0, text, given["n"])
        paragraphs = np.stack([table[name].to_numpy() for name in ("start", "end", "words", "n_grams")], axis=1)
        found = judge_document(finds.gram, finds.start, finds.end, evidence, given, paragraphs)
        spans = []
        if found.counted.any():
            spans = cut_spans(found, finds.start, finds.end, len(text), gone, given, paragraphs) if given["action"] == "cut" else None
        return found, spans

    return judge


def left(text, spans):
    return remaining(text, [(start, end) for start, end, _ in spans])


# GPT-3's rule, on texts whose remains can be counted: Brown et al. 2020, appendix C; as lm-evaluation-harness' janitor applies it, the
# 200 characters are on either side of the words with their punctuation.


@pytest.mark.parametrize("filth, n", [("Filth", 1), ("filth lots of dirty filthy filth", 6)])
def test_two_hundred_characters_on_either_side_go_with_the_n_gram(judged, filth, n):
    dirt = "FILTH. " if n == 1 else "FILTH. lots of dirty filtHy FIlTh! "
    text = FILLER * 9 + dirt + FILLER * 9
    _, spans = judged([filth], text, "gpt3-cut", n=n)
    first, last = len(FILLER) * 9 - 200, len(FILLER) * 9 + len(dirt.strip()) + 200
    assert left(text, spans) == text[:first] + text[last:]


def test_pieces_under_two_hundred_characters_go_too(judged):
    before, behind = FILLER * 8, FILLER * 6  # 440 and 330 characters: 240 of the one stay, 131 of the other would
    text = before + "filth " + behind
    _, spans = judged(["filth"], text, "gpt3-cut", n=1)
    assert left(text, spans) == text[: len(before) - 200]
    _, spans = judged(["filth"], behind + "filth " + before, "gpt3-cut", n=1)
    assert left(behind + "filth " + before, spans) == (behind + "filth " + before)[len(behind) + 5 + 200 :]


def test_a_piece_between_two_n_grams_goes_if_it_is_short_and_stays_if_it_is_not(judged):
    for fillers, stays in ((10, False), (11, True)):  # 551 and 606 characters between them, 151 and 206 between the cuts
        text = FILLER * 9 + "filth " + FILLER * fillers + "filth " + FILLER * 9
        _, spans = judged(["filth"], text, "gpt3-cut", n=1)
        assert len(spans) == (2 if stays else 1)
        start = len(FILLER) * 9 + 5 + 200
        middle = text[start : start + len(FILLER) * fillers + 1 - 400]
        last = text[len(text) - (len(FILLER) * 9 + 1 - 200) :]
        assert left(text, spans) == text[: len(FILLER) * 9 - 200] + (middle if stays else "") + last


@pytest.mark.parametrize("times, dropped", [(9, False), (10, True)])
def test_a_document_in_more_than_ten_pieces_is_dropped(judged, times, dropped):
    text = FILLER * 12 + ("filth " + FILLER * 12) * times
    found, spans = judged(["filth"], text, "gpt3-cut", n=1)
    assert found.counted.sum() == times
    assert (spans is None) == dropped
    assert dropped or len(spans) == times


def test_a_document_of_which_nothing_long_enough_is_left_is_dropped(judged):
    assert judged(["filth"], FILLER * 4 + "filth " + FILLER * 6, "gpt3-cut", n=1)[1] is None
    assert judged(["filth"], "filth", "gpt3-cut", n=1, min_piece_chars=0)[1] is None


def test_what_was_cut_out_before_is_no_part_of_a_piece(judged):
    text = FILLER * 9 + "filth " + FILLER * 9
    gone = [(0, len(FILLER) * 9 - 300)]  # leaves 100 characters of the first piece
    _, spans = judged(["filth"], text, "gpt3-cut", n=1, gone=gone)
    assert [(start, end) for start, end, _ in spans] == [(0, len(FILLER) * 9 + 5 + 200)]


def test_n_grams_of_too_many_documents_say_nothing(judged):
    assert judged(["filth"], FILLER + "filth", "gpt3-cut", n=1, held=10)[0].counted.all()
    assert not judged(["filth"], FILLER + "filth", "gpt3-cut", n=1, held=11)[0].counted.any()
    assert judged(["filth"], FILLER + "filth", "gpt3-cut", n=1, held=11, max_documents=None)[0].counted.all()


@pytest.mark.parametrize("seed", range(20))
def test_cuts_are_in_order_apart_inside_the_text_and_cover_every_find(judged, seed):
    rng = random.Random(seed)
    text = "".join(rng.choice([FILLER, FILLER * 7, "filth ", "foul play "]) for _ in range(rng.randrange(1, 60)))
    _, spans = judged(["filth", "foul play"], text, "gpt3-cut", n=1, max_pieces=None)
    if spans:
        bounds = [bound for start, end, _ in spans for bound in (start, end)]
        assert bounds == sorted(set(bounds))
        assert 0 <= bounds[0] <= bounds[-1] <= len(text)
        assert "filth" not in left(text, spans) and "foul" not in left(text, spans)
        gaps = [high - low for low, high in zip([0, *bounds[1::2]], [*bounds[::2], len(text)])]
        assert all(gap == 0 or gap >= 200 for gap in gaps)


ITEM = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"  # ten 8-grams


@pytest.mark.parametrize("held, contaminated", [(14, True), (13, False)])
def test_seventy_percent_of_an_item_s_8_grams_contaminate(judged, held, contaminated):
    text = " ".join(ITEM.split()[:held])  # 14 words have 7 of the ten
    found, _ = judged([ITEM], text, "palm-ratio")
    assert found.counted.all() == contaminated
    assert found.items.tolist() == ([0] if contaminated else [])
    assert found.share[0] == pytest.approx((held - 7) / 10)


def test_repeating_one_n_gram_is_no_larger_share(judged):
    found, _ = judged([ITEM], " and ".join([" ".join(ITEM.split()[:8])] * 20), "palm-ratio")
    assert len(found.counted) == 20
    assert found.share[0] == pytest.approx(0.1)
    assert not found.counted.any()


def test_n_grams_of_alternatives_are_no_part_of_the_share(judged):
    item = [[" ".join(ITEM.split()[:8])], ["alpha beta gamma delta", "one more answer here"]]  # 9 own 8-grams
    found, _ = judged([item], f"{' '.join(ITEM.split()[:8])} alpha beta gamma delta one more answer here", "palm-ratio")
    assert found.share[0] == pytest.approx(1.0)
    found, _ = judged([item], " ".join(ITEM.split()[4:8]) + " one more answer here", "palm-ratio")
    assert found.share.tolist() == [0.0]
    assert judged([item], " ".join(ITEM.split()[4:8]) + " one more answer here", "drop-any-n", n=8)[0].counted.all()


def test_each_n_gram_is_put_down_to_the_item_of_which_there_is_most(judged):
    shared = "this preamble stands before every question of the set word for word"
    items = [f"{shared} first {ITEM}", f"{shared} second something else that is not there at all", f"{shared} third {ITEM}"]
    found, _ = judged(items, f"{shared} third {ITEM}", "drop-any-n", n=8)
    assert set(found.item.tolist()) == {2}
    assert found.share[found.strongest] == 1.0
    assert found.items.tolist() == [0, 1, 2]  # an n-gram of each of them is there
    assert judged(items, f"{shared} third {ITEM}", "palm-ratio")[0].items.tolist() == [2]


def test_a_paragraph_of_which_half_is_an_item_s_is_cut(judged):
    words = [f"w{number}" for number in range(40)]
    item = " ".join(words[:26])  # 14 13-grams
    half = " ".join(words)  # 28, of which 14 are the item's
    text = f"First paragraph, kept.\nSecond line.\n\n{half}\n \nThe last one."
    found, spans = judged([item], text, "paragraph-ratio")
    assert found.counted.all()
    assert left(text, spans) == "First paragraph, kept.\nSecond line.\n\nThe last one."
    found, spans = judged([item], text.replace(half, f"{half} more"), "paragraph-ratio")
    assert len(found.counted) == 14
    assert not found.counted.any()
    assert spans == []


def test_n_grams_that_run_over_the_end_of_a_paragraph_count_for_none(judged):
    words = [f"w{number}" for number in range(20)]
    text = " ".join(words[:10]) + "\n\n" + " ".join(words[10:])
    found, _ = judged([" ".join(words)], text, "paragraph-ratio")
    assert len(found.counted) == 8
    assert not found.counted.any()


def test_suppressed_n_grams_count_neither_for_nor_against_a_paragraph(index_of):
    words = [f"w{number}" for number in range(40)]
    text = " ".join(words)
    given = rules("paragraph-ratio", max_documents=5)
    index, folder = index_of([" ".join(words[:20]), " ".join(words[20:])], 13)
    finds, _ = find(index, pa.array([text]))
    table = paragraphs_of(0, text, 13)
    paragraphs = np.stack([table[name].to_numpy() for name in ("start", "end", "words", "n_grams")], axis=1)
    for common, contaminated in ((0, True), (2, True), (16, False)):  # 16 finds among 28 n-grams
        documents = np.ones(len(index.hashes), np.int64)
        documents[finds.gram[:common]] = 6
        evidence = Evidence.of(index.words, documents, load_postings(folder), 5)
        found = judge_document(finds.gram, finds.start, finds.end, evidence, given, paragraphs)
        # 16 of 28, then 14 of 26, then none of 12.
        assert found.counted.sum() == (16 - common if contaminated else 0)


def test_a_short_paragraph_is_contaminated_by_an_item_that_makes_it_up(judged):
    text = "John ate the cake\n\nJohn ate the cake\nand many other things he found there that day"
    found, spans = judged(["John ate the cake."], text, "paragraph-ratio")
    assert found.counted.tolist() == [True, False]  # of the second paragraph's twelve words it is a third
    assert left(text, spans) == text[19:]
