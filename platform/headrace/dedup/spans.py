"""Spans of consecutive units: noted down while the text goes by, brought together by their hash, and reduced to those that repeat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headrace import schema, storage
from headrace.dedup import sidecars
from headrace.dedup.cuts import standing_rows
from headrace.dedup.preference import preferences
from headrace.stage import UnitResult
from headrace.text.sentences import segment
from headrace.text.shingles import ngrams

Keep = Literal["first", "none"] | int

# The units of each document in their order: positions are code points, as in `text.sentences.Units`; 32 bits hold them and the number
# of a unit in its document, since a text is below 2 GiB.
TEXT_UNITS = pa.schema([("doc", pa.int64()), ("end", pa.int32()), ("line_end", pa.int32()), ("hash", pa.uint64()), ("words", pa.int32())])

# Rows of the span shuffle, and what an index keeps of documents seen before: sorting by these columns puts the occurrences of a span
# together, the first in front. `position` counts the units before it in the document.
SPANS = pa.schema([("hash", pa.uint64()), ("preference", pa.int32()), ("doc", pa.int64()), ("position", pa.int32())])

# Occurrences whose units are cut, and a document that holds the same span. `rank` is that of the documents file.
REPEATS = pa.schema([("rank", pa.int32()), ("doc", pa.int64()), ("position", pa.int32()), ("kept", pa.int64())])


class TextUnitSigner:
    """text-units/: the sentences, lines or paragraphs of each document."""

    def __init__(self, unit: dict[str, Any], folder: Path) -> None:
        self._unit = unit["sentence"]["unit"]
        self._counter = f"{self._unit}s"
        self.counters = {self._counter: 0}
        self._rows = sidecars.RowWriter(folder / "work" / "text-units" / f"{unit['id']}.parquet", TEXT_UNITS)
        self.close = self._rows.close

    def add(self, docs: npt.NDArray[np.int64], texts: list[str]) -> None:
        units = segment(texts, self._unit)
        self._rows.write(np.repeat(docs, np.diff(units.offsets)), units.ends, units.line_ends, units.hashes, units.words)
        self.counters[self._counter] += len(units.ends)


def whole_documents(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Columns, `doc` the first, of a table sorted by it: a row group or a little more at a time, so that no document is torn apart."""
    with pq.ParquetFile(storage.local(path), page_checksum_verification=True) as file:
        waiting = file.schema_arrow.empty_table().select(columns)
        for group in range(file.metadata.num_row_groups):
            rows = pa.concat_tables([waiting, file.read_row_group(group, columns)])
            doc = rows["doc"].to_numpy()
            last = int(np.searchsorted(doc, doc[-1])) if len(doc) else 0
            if last:
                yield rows.slice(0, last)
            waiting = rows.slice(last)
    if len(waiting):
        yield waiting


def documents_of(units: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The documents of these whole documents' `TEXT_UNITS` rows: their numbers int64 [D], and the first row of each, int64 [D + 1]."""
    doc = units["doc"].to_numpy()
    starts = np.append(True, doc[1:] != doc[:-1])
    return doc[starts], np.append(np.flatnonzero(starts), len(doc))


def spread_spans(unit: dict[str, Any], folder: Path) -> UnitResult:
    """spans/ of one documents file: those of the documents that stand. A document of fewer units than a span has none."""
    standing, order = standing_rows(unit, "sentence"), preferences(unit)
    writer = sidecars.RowWriter(folder / "work" / "spans" / f"{unit['id']}.parquet", SPANS)
    for units in whole_documents(Path(unit["work"]) / "text-units" / f"{unit['id']}.parquet", ["doc", "hash"]):
        documents, first = documents_of(units)
        offsets, hashes = ngrams(first, units["hash"].to_numpy(), unit["sentence"]["span"])
        counts = np.diff(offsets)
        doc = np.repeat(documents, counts)
        position = (np.arange(len(doc)) - np.repeat(offsets[:-1], counts)).astype(np.int32)
        rows = schema.rows_of(doc)
        stands = standing[rows]
        writer.write(hashes[stands], order[rows[stands]], doc[stands], position[stands])
    writer.close()
    return UnitResult()


def repeats(spans: pa.Table, keep: Keep) -> pa.Table:
    """Occurrences that are cut: a reduce from `SPANS` to `REPEATS` rows.

    `kept` is the document of the first occurrence; where that is cut itself, of the second. Documents of an index, whose preference is
    negative, come before all others and are not cut: what is said of them was settled by an earlier run.
    """
    hashes, preference, doc, position = (spans[name].to_numpy() for name in SPANS.names)
    starts = np.ones(len(doc), bool)
    starts[1:] = hashes[1:] != hashes[:-1]
    number = np.arange(len(doc))
    first = np.maximum.accumulate(np.where(starts, number, 0))
    if keep == "none":
        repeated = ~starts
        repeated[:-1] |= ~starts[1:]
        kept = np.where(starts, number + 1, first)
    else:
        repeated = number - first >= (1 if keep == "first" else keep)
        kept = first
    repeated &= preference >= 0
    removed = doc[repeated]
    columns = [(removed >> 32).astype(np.int32), removed, position[repeated], doc[kept[repeated]]]
    return pa.table([pa.array(column) for column in columns], schema=REPEATS)
