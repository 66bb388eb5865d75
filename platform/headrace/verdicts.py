"""Documents together with what the earlier stages say of them: verdict files are row-aligned with the documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headrace import artifact, schema, storage
from headrace.artifact import Artifact
from headrace.text.cuts import Cuts

BATCH_BYTES = 4 << 20  # of text at a time; a longer document is a batch of its own


def unit_inputs(documents: Artifact, verdicts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """Units of a stage that reads documents and what earlier stages say of them, one a documents file.

    Returns:
        {"id", "source", "documents": path, "verdicts": [paths], "removed": [paths]} of each.
    """
    columns = {kind: [found for artifact in verdicts if (found := artifact.files(kind))] for kind in ("verdicts", "removed")}
    return [
        {
            "id": unit["id"],
            "source": unit["source"],
            "documents": str(path),
            **{kind: [str(files[rank]) for files in lists] for kind, lists in columns.items()},
        }
        for rank, (unit, path) in enumerate(zip(documents.units, documents.files("documents"), strict=True))
    ]


def cuts_of(unit: Mapping[str, Any]) -> Cuts:
    """What the earlier stages cut out of a unit's documents; those that they rejected whole are the verdicts' matter."""
    tables = [artifact.read_table(Path(path), ["doc", "start", "end"]) for path in unit["removed"]]
    rows = pa.concat_tables([schema.REMOVED.empty_table().select(["doc", "start", "end"]), *tables])
    rows = rows.filter(rows["start"].is_valid())
    return Cuts.merged(*(rows[name].to_numpy() for name in ("doc", "start", "end")))


def kept_rows(unit: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """The documents of a unit that no earlier stage rejected: bool [rows].

    Raises:
        ValueError: a verdict file that is not row-aligned with the documents.
    """
    documents = Path(unit["documents"])
    with pq.ParquetFile(storage.local(documents)) as file:
        kept = np.ones(file.metadata.num_rows, bool)
    for path in unit["verdicts"]:
        accepted = artifact.read_table(Path(path), ["reason"])["reason"].is_null().to_numpy()
        if len(accepted) != len(kept):
            raise ValueError(
                f"{path}: {len(accepted)} verdicts for the {len(kept)} documents of {documents}; make the earlier stage again."
            )
        kept &= accepted
    return kept


def text_batches(path: Path, wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[npt.NDArray[np.int64], pa.Array]]:
    """Numbers (int64 [N]) and texts (an Arrow array) of the `wanted` documents (bool [rows]), about BATCH_BYTES at a time.

    Row groups without a wanted document are not read.
    """
    with pq.ParquetFile(storage.local(path), page_checksum_verification=True) as file:
        stop = 0
        for group in range(file.metadata.num_row_groups):
            start, stop = stop, stop + file.metadata.row_group(group).num_rows
            if not wanted[start:stop].any():
                continue
            num_bytes = file.metadata.row_group(group).total_byte_size
            rows = max(1, min(1 << 16, (stop - start) * BATCH_BYTES // max(1, num_bytes)))
            for batch in file.iter_batches(rows, row_groups=[group], columns=["doc", "text"], use_threads=False):
                chosen = batch.filter(pa.array(wanted[start : start + len(batch)]))
                start += len(batch)
                if len(chosen):
                    yield chosen["doc"].to_numpy(), chosen["text"]


def parts_of(unit: Mapping[str, Any]) -> npt.NDArray[np.object_]:
    """The part of each document that is kept, None for the others: [rows]. The split's verdict is the last; it names parts, not reasons."""
    *earlier, split = unit["verdicts"]
    parts: npt.NDArray[np.object_] = artifact.read_table(Path(split), ["reason"])["reason"].to_numpy(zero_copy_only=False).astype(object)
    parts[~kept_rows({**unit, "verdicts": earlier})] = None
    return parts
