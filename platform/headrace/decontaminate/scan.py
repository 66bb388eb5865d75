"""One pass over the text: where the n-grams of the index stand in the documents that are still there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace import artifact
from headrace.decontaminate.index import load_index
from headrace.decontaminate.match import Finds, find
from headrace.stage import UnitResult
from headrace.text.cuts import Cuts
from headrace.text.folding import folded_words
from headrace.verdicts import cuts_of, kept_rows, text_batches

# By document, then by the word at which the n-gram begins. Code points into the text, end exclusive; `chars` are those of the document.
FOUND = pa.schema([("doc", pa.int64()), ("gram", pa.int64()), ("start", pa.int64()), ("end", pa.int64()), ("chars", pa.int64())])
# Of the documents in which something was found, where paragraphs judge. `n_grams` are those with a letter, or 0 in fewer than n words.
PARAGRAPHS = pa.schema([("doc", pa.int64()), ("start", pa.int64()), ("end", pa.int64()), ("words", pa.int64()), ("n_grams", pa.int64())])
# Rows of the keyed reduce: one for each n-gram and document.
HOLDERS = pa.schema([("gram", pa.int64()), ("doc", pa.int64())])
HELD = pa.schema([("gram", pa.int64()), ("documents", pa.int64())])  # and what it comes down to

PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n")  # a blank line, as in text/words.py


def scan(unit: dict[str, Any], folder: Path) -> UnitResult:
    """found/, holders/ and, where paragraphs judge, paragraphs/ of one documents file.

    Documents that an earlier stage rejected are not read; an n-gram that overlaps what an earlier stage cut out is no longer there.

    Args:
        unit: {"id", "documents": path, "verdicts": [paths], "removed": [paths] or absent, "index": folder, "n", "judge"}.
    """
    index = load_index(Path(unit["index"]), unit["n"])
    cuts = cuts_of({"removed": unit.get("removed", [])})
    found, paragraphs = [FOUND.empty_table()], [PARAGRAPHS.empty_table()]
    text_bytes = 0
    for docs, texts in text_batches(Path(unit["documents"]), kept_rows(unit)):
        finds, words = find(index, texts)
        text_bytes += pc.sum(pc.binary_length(texts)).as_py() or 0
        kept = standing(finds, docs, cuts)
        columns = [docs[finds.text], finds.gram, finds.start, finds.end, words.chars[finds.text]]
        found.append(pa.table([pa.array(column[kept]) for column in columns], schema=FOUND))
        if unit["judge"] == "paragraph":
            for row in np.unique(finds.text[kept]).tolist():
                paragraphs.append(paragraphs_of(int(docs[row]), texts[row].as_py(), unit["n"]))
    table = pa.concat_tables(found).combine_chunks()
    artifact.write_table(table, folder / "work" / "found" / f"{unit['id']}.parquet")
    holders = table.select(["gram", "doc"]).group_by(["gram", "doc"]).aggregate([]).sort_by([("gram", "ascending"), ("doc", "ascending")])
    artifact.write_table(holders.cast(HOLDERS), folder / "work" / "holders" / f"{unit['id']}.parquet")
    if unit["judge"] == "paragraph":
        artifact.write_table(pa.concat_tables(paragraphs), folder / "work" / "paragraphs" / f"{unit['id']}.parquet")
    return UnitResult(counters={"scanned_bytes": text_bytes})


def standing(finds: Finds, docs: npt.NDArray[np.int64], cuts: Cuts) -> npt.NDArray[np.bool_]:
    """Which of the finds do not overlap a cut: bool [F].

    Args:
        docs: int64 [N], the documents that `finds.text` counts.
    """
    kept = np.ones(len(finds.text), bool)
    for row in np.unique(finds.text).tolist():
        low, high = np.searchsorted(cuts.doc, [docs[row], docs[row] + 1])
        if low == high:
            continue
        of = slice(*np.searchsorted(finds.text, [row, row + 1]))
        # The first cut that ends behind the n-gram's start; the cuts of a document are apart and in order.
        next_cut = low + np.searchsorted(cuts.end[low:high], finds.start[of], side="right")
        begins = np.append(cuts.start, np.iinfo(np.int64).max)[np.minimum(next_cut, len(cuts.start))]
        kept[of] = (next_cut >= high) | (begins >= finds.end[of])
    return kept


def paragraphs_of(doc: int, text: str, n: int) -> pa.Table:
    """The paragraphs of a text that hold a word, as PARAGRAPHS rows."""
    rows: list[list[int]] = []
    start = 0
    for stop, following in [*((m.start(), m.end()) for m in PARAGRAPH_END.finditer(text)), (len(text), len(text))]:
        words = folded_words(text[start:stop])
        if words:
            lettered = np.cumsum([0, *(any(c.isalpha() for c in word) for word in words)])
            n_grams = int((lettered[n:] > lettered[:-n]).sum()) if len(words) >= n else 0
            rows.append([doc, start, stop, len(words), n_grams])
        start = following
    columns = np.array(rows, np.int64).reshape(-1, 5).T
    return pa.table([pa.array(column) for column in columns], schema=PARAGRAPHS)


def count_holders(rows: pa.Table) -> pa.Table:
    """How many documents hold each n-gram: a reduce from HOLDERS to rows of n-gram and documents."""
    counted = rows.group_by("gram").aggregate([("doc", "count")]).sort_by("gram")
    return pa.table([counted["gram"], counted["doc_count"]], schema=HELD)
