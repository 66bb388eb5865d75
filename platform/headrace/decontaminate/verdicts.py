"""The verdicts of decontamination, row by row with the documents; what was cut; and every n-gram that was found, with whose it is."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace import artifact, schema
from headrace.decontaminate.index import load_index, load_postings
from headrace.decontaminate.rules import Evidence, Judged, cut_spans, judge_document
from headrace.stage import UnitResult
from headrace.verdicts import cuts_of, kept_rows

CONTAMINATED = "contaminated"

VERDICTS = pa.schema(
    [
        pa.field("doc", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),  # contaminated; null = kept, maybe with cuts, or rejected before
        pa.field("hits", pa.int64(), nullable=False),  # n-grams of items that count
        pa.field("suppressed_hits", pa.int64(), nullable=False),  # those that too many documents hold
        pa.field("item", pa.string()),  # <benchmark>:<item> of which the document holds most; null without a hit that counts
        pa.field("share", pa.float32()),  # of that item's n-grams, how many it holds
        pa.field("n_gram", pa.string()),  # the first of them that counts
    ]
)
HITS = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),  # the one the document holds most of, of those with this n-gram
        pa.field("n_gram", pa.string(), nullable=False),  # its words, folded
        pa.field("doc", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),  # code points into the text
        pa.field("end", pa.int64(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),  # that hold the n-gram
        pa.field("items", pa.int64(), nullable=False),  # that hold it
        pa.field("suppressed", pa.bool_(), nullable=False),  # in too many documents to say anything
        pa.field("counted", pa.bool_(), nullable=False),  # what contaminates the document
    ]
)
ITEM_DOCUMENTS = pa.schema([("item", pa.int64()), ("documents", pa.int64())])  # of this unit, in which the item has a hit that counts


@dataclass
class Outcome:
    """What the documents of one file come to, gathered document by document."""

    reason: npt.NDArray[np.object_]
    hits: npt.NDArray[np.int64]
    suppressed: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]  # its number, -1 for none
    share: npt.NDArray[np.float64]
    n_gram: npt.NDArray[np.object_]
    removed: list[tuple[int, str, int | None, int | None, int, float]] = field(default_factory=list)  # row, level, start, end, item, score

    @classmethod
    def of(cls, rows: int) -> Outcome:
        reason, n_gram = np.full((2, rows), None, object)
        hits, suppressed = np.zeros((2, rows), np.int64)
        return cls(reason, hits, suppressed, np.full(rows, -1, np.int64), np.full(rows, np.nan), n_gram)


def judge(unit: dict[str, Any], folder: Path) -> UnitResult:
    """verdicts/, removed/, hits/ and item-documents/ of one documents file.

    Args:
        unit: as for `scan`, with "held": [partitions of the n-grams' numbers of documents] and "rules": of `Decontaminate`.
    """
    index = load_index(Path(unit["index"]), unit["n"])
    evidence = load_evidence(Path(unit["index"]), tuple(unit["held"]), unit["n"], unit["rules"]["max_documents"])
    documents = artifact.read_table(Path(unit["documents"]), ["doc", "id", "source"])
    doc = documents["doc"].to_numpy()
    kept = kept_rows(unit)
    cuts = cuts_of({"removed": unit.get("removed", [])})
    found = artifact.read_table(Path(unit["work"]) / "found" / f"{unit['id']}.parquet")
    gram, start, end, chars = (found[name].to_numpy() for name in ("gram", "start", "end", "chars"))
    outcome = Outcome.of(len(doc))
    counted, item = np.zeros(len(found), bool), np.zeros(len(found), np.int64)
    guilty: list[npt.NDArray[np.int64]] = []
    for number, of, paragraphs in _documents(unit, found["doc"].to_numpy()):
        judged = judge_document(gram[of], start[of], end[of], evidence, unit["rules"], paragraphs)
        counted[of], item[of] = judged.counted, judged.item
        guilty.append(judged.items)
        row = int(schema.rows_of(np.array(number)))
        outcome.hits[row] = judged.counted.sum()
        outcome.suppressed[row] = evidence.suppressed[gram[of]].sum()
        if judged.counted.any():
            outcome.item[row], outcome.share[row] = judged.item[judged.strongest], judged.share[judged.strongest]
            outcome.n_gram[row] = index.phrase(int(gram[of][judged.strongest]))
            spans = None
            if unit["rules"]["action"] == "cut":
                spans = cut_spans(judged, start[of], end[of], int(chars[of][0]), cuts.of(number), unit["rules"], paragraphs)
            _remove(outcome, row, judged, spans, unit["rules"]["judge"])
    names = load_names(Path(unit["index"]))
    _write(outcome, documents, names, unit, folder)
    suppressed = evidence.suppressed[gram]
    rows = pa.array(schema.rows_of(found["doc"].to_numpy()))
    holders = np.diff(evidence.postings.offsets)[gram]
    columns = [
        names["benchmark"].take(pa.array(item)), names["item"].take(pa.array(item)),
        pa.array([index.phrase(each) for each in gram.tolist()], pa.string()),
        found["doc"], documents["id"].take(rows), documents["source"].take(rows), found["start"], found["end"],
        pa.array(evidence.documents[gram]), pa.array(holders), pa.array(suppressed), pa.array(counted),
    ]  # fmt: skip
    artifact.write_table(pa.table(columns, schema=HITS), folder / "hits" / f"{unit['id']}.parquet")
    numbers, times = np.unique(np.concatenate([np.empty(0, np.int64), *guilty]), return_counts=True)
    table = pa.table([pa.array(numbers), pa.array(times.astype(np.int64))], schema=ITEM_DOCUMENTS)
    artifact.write_table(table, folder / "item-documents" / f"{unit['id']}.parquet")
    dropped = int((outcome.reason == CONTAMINATED).sum())
    spans_cut = [(end - start) for _, _, start, end, _, _ in outcome.removed if start is not None and end is not None]
    counters = {
        "hits": int(counted.sum()),
        "suppressed_hits": int(suppressed.sum()),
        "documents_cut": len({row for row, _, start, *_ in outcome.removed if start is not None}),
        "cuts": len(spans_cut),
        "cut_chars": sum(spans_cut),
    }
    return UnitResult(int(kept.sum()), int(kept.sum()) - dropped, {CONTAMINATED: dropped}, counters)


def _documents(unit: dict[str, Any], doc: npt.NDArray[np.int64]) -> Iterator[tuple[int, slice, npt.NDArray[np.int64]]]:
    """Number, finds and paragraphs (int64 [P, 4]) of every document in which something was found."""
    bounds = [0, *(np.flatnonzero(np.diff(doc)) + 1).tolist(), len(doc)]
    paragraphs = np.empty((0, 4), np.int64)
    listed = np.empty(0, np.int64)
    if unit["judge"] == "paragraph":
        table = artifact.read_table(Path(unit["work"]) / "paragraphs" / f"{unit['id']}.parquet")
        listed = table["doc"].to_numpy()
        paragraphs = np.stack([table[name].to_numpy() for name in ("start", "end", "words", "n_grams")], axis=1)
    for low, high in itertools.pairwise(bounds):
        if high > low:
            first, stop = np.searchsorted(listed, [doc[low], doc[low] + 1])
            yield int(doc[low]), slice(low, high), paragraphs[first:stop]


def _remove(outcome: Outcome, row: int, judged: Judged, spans: list[tuple[int, int, int]] | None, level: str) -> None:
    if spans is None:
        outcome.reason[row] = CONTAMINATED
        outcome.removed.append((row, "document", None, None, int(outcome.item[row]), float(outcome.share[row])))
        return
    # What is cut for an item's n-grams is n-grams.
    named = "paragraph" if level == "paragraph" else "ngram"
    for start, end, find in spans:
        outcome.removed.append((row, named, start, end, int(judged.item[find]), float(judged.share[find])))


def _write(outcome: Outcome, documents: pa.Table, names: pa.Table, unit: dict[str, Any], folder: Path) -> None:
    """verdicts/ and removed/."""
    kept_ids = [f"{benchmark}:{item}" for benchmark, item in zip(names["benchmark"].to_pylist(), names["item"].to_pylist())]
    columns = [
        documents["doc"],
        pa.array(outcome.reason, pa.string()),
        pa.array(outcome.hits),
        pa.array(outcome.suppressed),
        pa.array([kept_ids[item] if item >= 0 else None for item in outcome.item.tolist()], pa.string()),
        pa.array(outcome.share.astype(np.float32), mask=np.isnan(outcome.share)),
        pa.array(outcome.n_gram, pa.string()),
    ]
    artifact.write_table(pa.table(columns, schema=VERDICTS), folder / "verdicts" / f"{unit['id']}.parquet")
    rows, levels, starts, ends, items, scores = zip(*outcome.removed) if outcome.removed else ((),) * 6
    removed = [
        documents["doc"].take(pa.array(rows, pa.int64())),
        documents["id"].take(pa.array(rows, pa.int64())),
        pa.array(levels, pa.string()),
        pa.array(starts, pa.int64()),
        pa.array(ends, pa.int64()),
        pa.array([kept_ids[item] for item in items], pa.string()),
        pa.array(scores, pa.float32()),
    ]
    artifact.write_table(pa.table(removed, schema=schema.REMOVED), folder / "removed" / f"{unit['id']}.parquet")


@functools.lru_cache(maxsize=1)
def load_evidence(index: Path, held: tuple[str, ...], n: int, max_documents: int | None) -> Evidence:
    """What every n-gram of the index is worth; one table is kept in each process."""
    words = load_index(index, n).words
    documents = np.zeros(len(words), np.int64)
    for path in held:
        table = artifact.read_table(Path(path))
        documents[table["gram"].to_numpy()] = table["documents"].to_numpy()
    return Evidence.of(words, documents, load_postings(index), max_documents)


@functools.lru_cache(maxsize=1)
def load_names(index: Path) -> pa.Table:
    """Benchmark and id of every item; one table is kept in each process."""
    return artifact.read_table(index / "items.parquet", ["benchmark", "item"]).combine_chunks()
