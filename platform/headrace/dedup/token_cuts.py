"""Ranges of tokens that go, as cuts of the text that fall on code points, and the documents of which too little is left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headrace import artifact, schema, storage
from headrace.dedup.cuts import CUTS, DROPPED, tables_before, write_level
from headrace.dedup.token_ids import TokenIds, ids_folder
from headrace.dedup.token_offsets import offsets_of
from headrace.stage import UnitResult
from headrace.text.cuts import Cuts, remaining
from headrace.text.shingles import word_hashes
from headrace.verdicts import text_batches

SHORT = "short_after_token_dedup"
PROBABLE_CHARS = 16  # of a word and what stands between it and the next

Int64s = npt.NDArray[np.int64]


def cut_tokens(unit: dict[str, Any], folder: Path) -> UnitResult:
    """token-cuts/ and token-dropped/ of one documents file."""
    held = TokenIds.open(ids_folder(unit), unit["id"])
    start, end, kept = _ranges(unit, "")
    counters = {"tokens_cut": int((end - start).sum())}
    if unit["token"]["passes"] == 2:
        pieces = artifact.read_table(Path(unit["work"]) / "pieces-2" / f"{unit['id']}.parquet")
        again = moved_back(*_ranges(unit, "-2"), *(pieces[name].to_numpy() for name in ("start", "end", "moved")))
        counters |= {"tokens_cut_in_pass_2": int((again[1] - again[0]).sum()), "token_ranges_in_pass_2": len(again[0])}
        counters["tokens_cut"] += counters["tokens_cut_in_pass_2"]
        joined = np.concatenate([np.stack([start, end, kept]), np.stack(again)], axis=1)
        start, end, kept = joined[:, np.argsort(joined[0], kind="stable")]
    cuts = _in_code_points(unit, held, start, end, kept)
    write_level(cuts, unit, folder, "token", "cuts")
    write_level(_short(unit, cuts), unit, folder, "token", "dropped")
    return UnitResult(counters=counters)


def _ranges(unit: Mapping[str, Any], suffix: str) -> tuple[Int64s, Int64s, Int64s]:
    table = artifact.read_table(Path(unit["work"]) / f"ranges{suffix}" / f"{unit['id']}.parquet")
    start, end, kept = (table[name].to_numpy() for name in ("start", "end", "kept"))
    return start, end, kept


def moved_back(
    start: Int64s, end: Int64s, kept: Int64s, piece_start: Int64s, piece_end: Int64s, moved: Int64s
) -> tuple[Int64s, Int64s, Int64s]:
    """Ranges of joined pieces as ranges of what the pieces were taken from; a range that goes over a joint becomes two.

    Args:
        start, end, kept: int64 [R].
        piece_start, piece_end: int64 [P], the pieces, none empty.
        moved: int64 [P], where each begins among the joined.
    """
    first = np.searchsorted(moved, start, side="right") - 1
    parts = np.searchsorted(moved, end, side="left") - first
    piece = np.arange(int(parts.sum())) - np.repeat(np.cumsum(parts) - parts, parts) + np.repeat(first, parts)
    shift = piece_start[piece] - moved[piece]
    low, high = np.repeat(start, parts) + shift, np.repeat(end, parts) + shift
    return np.maximum(low, piece_start[piece]), np.minimum(high, piece_end[piece]), np.repeat(kept, parts)


def _in_code_points(unit: Mapping[str, Any], held: TokenIds, start: Int64s, end: Int64s, kept: Int64s) -> pa.Table:
    """CUTS rows: the code points that the ranges hold whole, so that nothing goes of which a part stays."""
    rows = held.rows_at(start)
    parts = [np.empty((4, 0), np.int64)]
    for row, offsets in offsets_of(unit, held, np.unique(rows)):
        of_document = slice(*np.searchsorted(rows, [row, row + 1]))
        low, high = offsets.inside(start[of_document] - held.start[row], end[of_document] - held.start[row])
        some = low < high
        doc = np.full(int(some.sum()), held.doc[row])
        parts.append(np.stack([doc, low[some], high[some], kept[of_document][some]]))
    columns = np.concatenate(parts, axis=1)
    columns = columns[:, np.argsort(columns[0], kind="stable")]
    return pa.table([pa.array(column) for column in columns], schema=CUTS)


def _short(unit: Mapping[str, Any], cuts: pa.Table) -> pa.Table:
    """DROPPED rows: documents that lost something here and have fewer than `min_words` words without all that any level cut."""
    own = Cuts(*(cuts[name].to_numpy() for name in ("doc", "start", "end")))
    earlier = earlier_cuts(unit)
    both = Cuts.merged(*(np.concatenate(pair) for pair in ((own.doc, earlier.doc), (own.start, earlier.start), (own.end, earlier.end))))
    with pq.ParquetFile(storage.local(unit["documents"])) as file:
        wanted = np.zeros(file.metadata.num_rows, bool)
    wanted[schema.rows_of(own.doc)] = unit["token"]["min_words"] > 0
    short = [np.empty(0, np.int64)]
    for docs, texts in text_batches(Path(unit["documents"]), wanted):
        left = [remaining(text, both.of(doc)) for doc, text in zip(docs.tolist(), texts.to_pylist())]
        short.append(docs[fewer_words(left, unit["token"]["min_words"])])
    doc = pa.array(np.concatenate(short))
    nothing = pa.nulls(len(doc))
    return pa.table([doc, pa.array([SHORT] * len(doc), pa.string()), nothing.cast(pa.int64()), nothing.cast(pa.float32())], schema=DROPPED)


def fewer_words(texts: list[str], enough: int) -> npt.NDArray[np.bool_]:
    """Whether each text has fewer words than `enough`: bool [N]. The beginning of a long one mostly tells."""
    begin, _ = word_hashes([text[: enough * PROBABLE_CHARS] for text in texts])
    fewer: npt.NDArray[np.bool_] = np.diff(begin) < enough
    whole, _ = word_hashes([text for text, unclear in zip(texts, fewer.tolist()) if unclear])
    fewer[fewer] = np.diff(whole) < enough
    return fewer


def earlier_cuts(unit: Mapping[str, Any]) -> Cuts:
    """What the levels before this one cut out of the documents of one file."""
    tables = pa.concat_tables([CUTS.empty_table(), *tables_before(unit, "token", "cuts")])
    return Cuts.merged(*(tables[name].to_numpy() for name in ("doc", "start", "end")))
