"""One pass over the text for all levels: what each of them needs to know of a document, as integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace import artifact, schema, storage
from headrace.dedup import exact, sidecars
from headrace.dedup.candidates import BANDS
from headrace.dedup.minhash import HashFamily, document_band_keys
from headrace.dedup.names import write_names
from headrace.dedup.preference import preferences
from headrace.dedup.presets import Shingle
from headrace.dedup.spans import TextUnitSigner
from headrace.dedup.token_ids import IdsSigner
from headrace.stage import UnitResult
from headrace.verdicts import kept_rows, text_batches

SEED = 5  # of the hash functions: signatures of different runs can be compared


def signatures_schema(bands: int) -> pa.Schema:
    """`shingles` counts those of the text, repeats included; without any, `bands` says nothing."""
    return pa.schema([("doc", pa.int64()), ("shingles", pa.int64()), ("bands", pa.list_(pa.uint64(), bands))])


class Signer(Protocol):
    """What one level writes down of each document while the text goes by, in a file below folder/work named after the unit."""

    counters: dict[str, int]

    def add(self, docs: npt.NDArray[np.int64], texts: list[str]) -> None:
        """Take a batch: the numbers of N documents, ascending, and their texts."""

    def close(self) -> None:
        """All documents of the unit have been taken."""


def sign(unit: dict[str, Any], folder: Path) -> UnitResult:
    """The signatures of one documents file for every level that is on; documents that an earlier stage rejected are left out."""
    signers = _signers(unit, folder)
    write_names(artifact.read_table(Path(unit["documents"]), ["id"])["id"], folder / "work" / "names" / f"{unit['id']}.arrow")
    for docs, batch in text_batches(Path(unit["documents"]), kept_rows(unit)):
        texts = batch.to_pylist()
        for signer in signers:
            signer.add(docs, texts)
    for signer in signers:
        signer.close()
    return UnitResult(counters={name: count for signer in signers for name, count in signer.counters.items()})


def _signers(unit: dict[str, Any], folder: Path) -> list[Signer]:
    signers: list[Signer] = [ContentSigner(unit, folder)]
    if unit["document"]:
        signers.append(MinHashSigner(unit, folder))
    if unit["sentence"]:
        signers.append(TextUnitSigner(unit, folder))
    if unit["token"]:
        signers.append(IdsSigner(unit, folder))
    return signers


class ContentSigner:
    """exact/: the hash of each document's normalised text. Always written: split, too, goes by it."""

    def __init__(self, unit: dict[str, Any], folder: Path) -> None:
        self.counters: dict[str, int] = {}
        self._rows = sidecars.RowWriter(folder / "work" / "exact" / f"{unit['id']}.parquet", exact.EXACT)
        self._preferences = preferences(unit)
        self.close = self._rows.close

    def add(self, docs: npt.NDArray[np.int64], texts: list[str]) -> None:
        high, low = exact.content_hashes(texts)
        self._rows.write(high, low, self._preferences[schema.rows_of(docs)], docs)


class MinHashSigner:
    """signatures/: the band keys of each document."""

    def __init__(self, unit: dict[str, Any], folder: Path) -> None:
        self.counters = {"documents_too_short_to_compare": 0}
        self._shingle = Shingle.model_validate(unit["document"]["shingle"])
        self._shape = unit["document"]["bands"], unit["document"]["rows"]
        self._family = HashFamily.draw(self._shape[0] * self._shape[1], SEED)
        path = folder / "work" / "signatures" / f"{unit['id']}.parquet"
        self._rows = sidecars.RowWriter(path, signatures_schema(self._shape[0]))
        self.close = self._rows.close

    def add(self, docs: npt.NDArray[np.int64], texts: list[str]) -> None:
        offsets, shingles = self._shingle.of(texts)
        keys = document_band_keys(offsets, shingles, self._family, *self._shape)
        self._rows.write(docs, np.diff(offsets), pa.FixedSizeListArray.from_arrays(pa.array(keys.reshape(-1)), self._shape[0]))
        self.counters["documents_too_short_to_compare"] += int((np.diff(offsets) == 0).sum())


def spread_bands(unit: dict[str, Any], folder: Path) -> UnitResult:
    """bands/ of one documents file: a row a band, for the documents that have shingles and are no copy of another."""
    rows = max(1, sidecars.FLUSH_BYTES // (8 * unit["document"]["bands"]))
    path = Path(unit["work"]) / "signatures" / f"{unit['id']}.parquet"
    copies = sidecars.rows_of_rank(unit["copies"], unit["rank"])["doc"].combine_chunks()
    order = preferences(unit)
    with (
        pq.ParquetFile(storage.local(path), page_checksum_verification=True) as signatures,
        artifact.table_writer(folder / "work" / "bands" / f"{unit['id']}.parquet", BANDS) as writer,
    ):
        for batch in signatures.iter_batches(rows):
            chosen = batch.filter(pc.and_not(pc.greater(batch["shingles"], 0), pc.is_in(batch["doc"], copies)))
            key = chosen["bands"].flatten()
            doc = np.repeat(chosen["doc"].to_numpy(), unit["document"]["bands"])
            writer.write_table(pa.table([key, pa.array(order[schema.rows_of(doc)]), pa.array(doc)], schema=BANDS))
    return UnitResult()
