"""What was found in one document, judged: which n-grams count, which item is named, what is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.decontaminate.index import Postings

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Span = tuple[int, int, int]  # start, end, place of the find that it is cut for


@dataclass(frozen=True)
class Evidence:
    """What the n-grams of an index are worth in a corpus."""

    words: npt.NDArray[np.int32]  # [G], of each n-gram
    documents: Int64s  # [G], documents of the corpus that hold it
    suppressed: Bools  # [G], found in too many of them
    postings: Postings
    speaking: Int64s  # [items], own n-grams that are not suppressed

    @classmethod
    def of(cls, words: npt.NDArray[np.int32], documents: Int64s, postings: Postings, max_documents: int | None) -> Evidence:
        """Suppressed n-grams count neither for nor against: an item's share is one of the others."""
        suppressed = documents > max_documents if max_documents is not None else np.zeros(len(documents), bool)
        silent = np.repeat(suppressed, np.diff(postings.offsets)) & postings.own
        speaking = postings.n_grams - np.bincount(postings.item[silent], minlength=len(postings.n_grams))
        return cls(words, documents, suppressed, postings, speaking)


@dataclass(frozen=True)
class Judged:
    """One document. F finds."""

    counted: Bools  # [F], finds that contaminate it
    item: Int64s  # [F], the item that each find is put down to: of those that hold the n-gram, the one the document holds most of
    share: npt.NDArray[np.float64]  # [F], of that item's n-grams, how many the document holds
    items: Int64s  # those with an n-gram that counts, ascending

    @property
    def strongest(self) -> int:
        """Place of the find whose item the document holds most of, the first of equals; there is one that counts."""
        places = np.flatnonzero(self.counted)
        return int(places[np.argmax(self.share[places])])


def judge_document(gram: Int64s, start: Int64s, end: Int64s, evidence: Evidence, rules: Mapping[str, Any], paragraphs: Int64s) -> Judged:
    """Judge the finds of one document.

    Args:
        gram, start, end: int64 [F], in the order of the text.
        rules: `Decontaminate.rules()`.
        paragraphs: int64 [P, 4], start, end, words and n-grams of the document's paragraphs; looked at where these judge.
    """
    speaks = ~evidence.suppressed[gram]
    distinct, place = np.unique(gram, return_inverse=True)
    of_gram, item, own = _holders(distinct, evidence.postings)
    held, which = np.unique(item, return_inverse=True)
    heard = own & ~evidence.suppressed[distinct[of_gram]]
    total = np.maximum(evidence.speaking[held], 1)
    share_of = np.bincount(which, weights=heard, minlength=len(held)) / total
    # Of each n-gram, the item with the largest share, the first of equals.
    order = np.lexsort((item, -share_of[which], of_gram))
    best = order[np.searchsorted(of_gram[order], np.arange(len(distinct)))]
    counted = speaks
    enough = np.ones(len(held), bool)
    if rules["judge"] == "item":
        enough = share_of >= rules["share"]
        counted = speaks & (np.bincount(of_gram, weights=enough[which] & heard, minlength=len(distinct)) > 0)[place]
    elif rules["judge"] == "paragraph":
        counted = speaks & in_contaminated_paragraph(gram, start, end, evidence, rules, paragraphs)
    guilty = np.bincount(place, weights=counted, minlength=len(distinct)) > 0
    items = np.unique(item[guilty[of_gram] & enough[which]])
    return Judged(counted, item[best][place], share_of[which[best]][place], items)


def _holders(grams: Int64s, postings: Postings) -> tuple[Int64s, Int64s, Bools]:
    """Place among `grams`, item and `own` of every pair of an n-gram and an item that holds it."""
    low, high = postings.offsets[grams], postings.offsets[grams + 1]
    counts = high - low
    of = np.repeat(np.arange(len(grams)), counts)
    rows = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts) + low[of]
    return of, postings.item[rows], postings.own[rows]


def in_contaminated_paragraph(
    gram: Int64s, start: Int64s, end: Int64s, evidence: Evidence, rules: Mapping[str, Any], paragraphs: Int64s
) -> Bools:
    """Which finds lie within a paragraph of whose n-grams at least the share are found: bool [F].

    Suppressed n-grams count in neither number. A paragraph of fewer than n words is contaminated by an item that makes up the share of
    its words.
    """
    inside = np.zeros(len(gram), bool)
    of = np.searchsorted(paragraphs[:, 0], start, side="right") - 1
    for number in np.unique(of).tolist():
        _, stop, words, n_grams = paragraphs[number].tolist()
        finds = np.flatnonzero((of == number) & (end <= stop))
        length = evidence.words[gram[finds]]
        silent = evidence.suppressed[gram[finds]]
        if n_grams:
            whole = length == rules["n"]
            share = int((whole & ~silent).sum()) / max(1, n_grams - int((whole & silent).sum()))
        else:
            share = int(length[~silent].max(initial=0)) / words
        inside[finds] = share >= rules["share"]
    return inside


def cut_spans(
    judged: Judged, start: Int64s, end: Int64s, chars: int, gone: Sequence[tuple[int, int]], rules: Mapping[str, Any], paragraphs: Int64s
) -> list[Span] | None:
    """What of a contaminated document is cut, in order and apart; None where nothing worth keeping stays, so that it is dropped.

    Args:
        start, end: int64 [F], of its finds. chars: code points of the text.
        gone: what earlier stages cut out of it, in order and apart; it is no part of any piece.
    """
    begins, ends = start[judged.counted], end[judged.counted]
    if rules["judge"] == "paragraph":
        # Up to the next paragraph, so that the blank line before it goes once.
        of = np.searchsorted(paragraphs[:, 0], begins, side="right") - 1
        begins, ends = paragraphs[of, 0], np.append(paragraphs[1:, 0], chars)[of]
    begins, ends = np.maximum(begins - rules["margin_chars"], 0), np.minimum(ends + rules["margin_chars"], chars)
    spans: list[Span] = []
    for low, high, find in sorted(zip(begins.tolist(), ends.tolist(), np.flatnonzero(judged.counted).tolist(), strict=True)):
        if spans and low <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], high), spans[-1][2])
        else:
            spans.append((low, high, find))
    gaps = [(before, behind) for before, behind in zip([0, *(s[1] for s in spans)], [*(s[0] for s in spans), chars], strict=True)]
    sizes = [high - low - sum(max(0, min(high, stop) - max(low, first)) for first, stop in gone) for low, high in gaps]
    if rules["max_pieces"] is not None and sum(size > 0 for size in sizes) > rules["max_pieces"]:
        return None
    short = [size < max(1, rules["min_piece_chars"]) for size in sizes]
    if all(short):
        return None
    kept: list[Span] = []
    for number, (low, high, find) in enumerate(spans):
        # A piece that is too short goes with the cut before it; the first, which has none, with the one behind it.
        low = 0 if number == 0 and short[0] else low
        high = gaps[number + 1][1] if short[number + 1] else high
        if kept and low <= kept[-1][1]:
            kept[-1] = (kept[-1][0], high, kept[-1][2])
        else:
            kept.append((low, high, find))
    return kept
