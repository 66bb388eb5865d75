"""First pass over the text: the hash of each document's content and its band keys, integers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace import artifact
from headrace.dedup import exact, sidecars
from headrace.dedup.candidates import BANDS
from headrace.dedup.minhash import HashFamily, document_band_keys
from headrace.stage import UnitResult
from headrace.text.shingles import word_shingles
from headrace.verdicts import kept_rows

SEED = 0  # of the hash functions: signatures of different runs can be compared
FLUSH_ROWS = 1 << 16


def signatures_schema(bands: int) -> pa.Schema:
    """`shingles` counts those of the text, repeats included; without any, `bands` says nothing."""
    return pa.schema([("doc", pa.int64()), ("shingles", pa.int64()), ("bands", pa.list_(pa.uint64(), bands))])


def sign(unit: dict[str, Any], folder: Path) -> UnitResult:
    """exact/ and signatures/ of one documents file; documents that an earlier stage rejected are left out."""
    bands, rows = unit["bands"], unit["rows"]
    family = HashFamily.draw(bands * rows, SEED)
    schema = signatures_schema(bands)
    hashes: list[pa.Table] = []
    signatures: list[pa.Table] = []
    too_short = 0
    with (
        artifact.table_writer(folder / "work" / "exact" / f"{unit['id']}.parquet", exact.EXACT) as exact_writer,
        artifact.table_writer(folder / "work" / "signatures" / f"{unit['id']}.parquet", schema) as signature_writer,
    ):

        def flush() -> None:
            exact_writer.write_table(pa.concat_tables([exact.EXACT.empty_table(), *hashes]).combine_chunks())
            signature_writer.write_table(pa.concat_tables([schema.empty_table(), *signatures]).combine_chunks())
            hashes.clear()
            signatures.clear()

        for docs, texts in sidecars.text_batches(Path(unit["documents"]), kept_rows(unit)):
            high, low = exact.content_hashes(texts)
            offsets, shingles = word_shingles(texts)
            keys = document_band_keys(offsets, shingles, family, bands, rows)
            doc = pa.array(docs)
            hashes.append(pa.table([pa.array(high), pa.array(low), _constant(unit["priority"], len(docs)), doc], schema=exact.EXACT))
            listed = pa.FixedSizeListArray.from_arrays(pa.array(keys.reshape(-1)), bands)
            signatures.append(pa.table([doc, pa.array(np.diff(offsets)), listed], schema=schema))
            too_short += int((np.diff(offsets) == 0).sum())
            if sum(len(table) for table in hashes) >= FLUSH_ROWS:
                flush()
        flush()
    return UnitResult(counters={"documents_too_short_to_compare": too_short})


def spread_bands(unit: dict[str, Any], folder: Path) -> UnitResult:
    """bands/ of one documents file: a row a band, for the documents that have shingles and are no copy of another."""
    copies = sidecars.rows_of_rank(unit["copies"], unit["rank"])["doc"].combine_chunks()
    with (
        pq.ParquetFile(Path(unit["work"]) / "signatures" / f"{unit['id']}.parquet", page_checksum_verification=True) as signatures,
        artifact.table_writer(folder / "work" / "bands" / f"{unit['id']}.parquet", BANDS) as writer,
    ):
        for batch in signatures.iter_batches(FLUSH_ROWS):
            chosen = batch.filter(pc.and_not(pc.greater(batch["shingles"], 0), pc.is_in(batch["doc"], copies)))
            key = chosen["bands"].flatten()
            doc = pa.array(np.repeat(chosen["doc"].to_numpy(), unit["bands"]))
            writer.write_table(pa.table([key, _constant(unit["priority"], len(doc)), doc], schema=BANDS))
    return UnitResult()


def _constant(value: int, length: int) -> pa.Array:
    return pa.array(np.full(length, value, np.int32))
