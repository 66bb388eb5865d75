"""Sentence level: spans of consecutive sentences, lines or paragraphs that the corpus holds more than once are cut.

Defined, over the documents that the document level left standing: `text/sentences.py` says what their units are and in which form two are
equal. A span is n consecutive units of one document; a document of fewer than n units has none. The occurrences of a span are ordered by
(preference, document number, position), those within one document and overlapping ones included. With keep `first`, every unit that an
occurrence covers which is not the first is cut; with k, one that comes behind the first k; with `none`, every occurrence of a span that
occurs twice. So every unit that goes under `first` stays somewhere, unless the document that it stays in becomes too short.

What is left of a document that lost something is dropped as `short_after_sentence_dedup` if it holds fewer than `min_words` words (as
`text/forms.py` counts them) or `min_units` units. A cut takes the white space behind it along, and leaves a line feed where it would join
two lines.

The defaults are C4's rule (Raffel et al. 2020, arXiv:1910.10683, section 2.2) with the bounds of datatrove's SentDedupConfig. Others:

    sentence: {unit: line, span: 1, keep: none, min_words: 0, min_units: 1}   # CCNet (Wenzek et al. 2020): no line that occurs twice
    sentence: {unit: line, span: 1, keep: 6, min_words: 0, min_units: 1}   # after Llama 3 (2024, arXiv:2407.21783), bound 6; here 6 stay
    sentence: {unit: paragraph, span: 1, min_words: 0, min_units: 1}   # Dolma (Soldaini et al. 2024)
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import NonNegativeInt, PositiveInt

from headrace.config import Config
from headrace.dedup import sidecars, spans
from headrace.dedup.cuts import CUTS, DROPPED, write_level
from headrace.dedup.index_rows import with_index
from headrace.dedup.phases import Phases
from headrace.stage import UnitResult
from headrace.text.sentences import Unit

VERSION = 1  # of the output: raised with the rules and forms of text/, too
SHORT = "short_after_sentence_dedup"
NOT_CUT = -1  # in place of the document kept

Int64s = npt.NDArray[np.int64]


class SentenceDedup(Config):
    """Spans of sentences, lines or paragraphs that repeat others."""

    unit: Unit = "sentence"
    span: PositiveInt = 3  # units that must repeat together
    keep: Literal["first", "none"] | PositiveInt = "first"  # which occurrences of a span stay; a number: at most so many
    min_words: NonNegativeInt = 50  # left in a document that lost something, or it goes
    min_units: PositiveInt = 3


def find_sentences(phases: Phases) -> list[dict[str, Any]]:
    """From text-units/ to sentence-dropped/ and sentence-cuts/; the records of the units. No text is read again, none is shuffled."""
    here = phases.small(phases.files("text-units"))
    phases.run(spans.spread_spans, "spans", here=here)
    keep = phases.units[0]["sentence"]["keep"]
    repeats = phases.collect(with_index(phases, "spans"), "hash", functools.partial(spans.repeats, keep=keep), "repeated-spans")
    repeats = phases.collect_by_file(repeats, "repeated-spans")
    return phases.run(cut_repeats, "sentence", here=here, repeats=phases.part_of_each(repeats))


def cut_repeats(unit: dict[str, Any], folder: Path) -> UnitResult:
    """sentence-cuts/ and sentence-dropped/ of one documents file."""
    settings = unit["sentence"]
    repeats = sidecars.rows_of_rank(unit["repeats"], unit["rank"])
    doc, position, kept = (repeats[name].to_numpy() for name in ("doc", "position", "kept"))
    cuts, dropped, units_cut = [CUTS.empty_table()], [DROPPED.empty_table()], 0
    path = Path(unit["work"]) / "text-units" / f"{unit['id']}.parquet"
    for units in spans.whole_documents(path, ["doc", "end", "line_end", "words"]) if len(doc) else ():
        documents, first = spans.documents_of(units)
        here = slice(*np.searchsorted(doc, [documents[0], documents[-1] + 1]))
        starts = first[np.searchsorted(documents, doc[here])] + position[here]
        kept_by = _covered(len(units), starts, kept[here], settings["span"])
        cuts.append(_cuts(units, kept_by))
        dropped.append(_dropped(documents[_too_short(units["words"].to_numpy(), kept_by == NOT_CUT, first, settings)]))
        units_cut += int((kept_by != NOT_CUT).sum())
    write_level(pa.concat_tables(cuts), unit, folder, "sentence", "cuts")
    write_level(pa.concat_tables(dropped), unit, folder, "sentence", "dropped")
    return UnitResult(counters={f"{settings['unit']}s_cut": units_cut})


def _covered(num_units: int, starts: Int64s, kept: Int64s, span: int) -> Int64s:
    """int64 [U]: the `kept` of the first of these spans that covers each unit, else NOT_CUT; `starts` ascends."""
    kept_by = np.full(num_units, NOT_CUT, np.int64)
    for place in range(span):  # of the spans that cover a unit, the first does so at its last place
        kept_by[starts + place] = kept
    return kept_by


def _cuts(units: pa.Table, kept_by: Int64s) -> pa.Table:
    """CUTS of whole documents: a row for each run of units that go on account of the same document."""
    doc, end, line_end = (units[name].to_numpy() for name in ("doc", "end", "line_end"))
    gone = kept_by != NOT_CUT
    head = np.append(True, doc[1:] != doc[:-1])  # first unit of its document
    start = np.where(head, 0, np.append(0, end[:-1]))
    # What is cut in one piece may be several runs. A piece that begins inside a line and ends with one leaves its line feed.
    opens = gone & (head | np.append(True, ~gone[:-1]))
    closes = gone & np.append(opens[1:] | ~gone[1:], True)
    inside = ~head & np.append(False, line_end[:-1] == end[:-1])
    stop = end.copy()
    stop[closes] = np.where(inside[opens], line_end[closes], end[closes])
    first = gone & (opens | np.append(True, kept_by[1:] != kept_by[:-1]))
    last = gone & np.append(first[1:] | ~gone[1:], True)
    columns = [doc[first], start[first].astype(np.int64), stop[last].astype(np.int64), kept_by[first]]
    return pa.table([pa.array(column) for column in columns], schema=CUTS)


def _too_short(words: npt.NDArray[np.int32], left: npt.NDArray[np.bool_], first: Int64s, settings: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """bool [D]: the documents that lost some of their units and have too little left; `first` [D + 1] are the first units of each."""
    units_left = np.add.reduceat(left.astype(np.int64), first[:-1])
    words_left = np.add.reduceat(words * left.astype(np.int64), first[:-1])
    return (units_left < np.diff(first)) & ((words_left < settings["min_words"]) | (units_left < settings["min_units"]))


def _dropped(documents: Int64s) -> pa.Table:
    nothing = [pa.nulls(len(documents), DROPPED.field(name).type) for name in ("kept", "score")]
    return pa.table([pa.array(documents), pa.array([SHORT] * len(documents), pa.string()), *nothing], schema=DROPPED)
