"""Documents together with what the earlier stages say of them: verdict files are row-aligned with the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from headrace import artifact
from headrace.artifact import Artifact


def unit_inputs(documents: Artifact, verdicts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """Units of a stage that reads documents and earlier verdicts: {"id", "documents", "verdicts"}, one a documents file."""
    columns = [artifact.files("verdicts") for artifact in verdicts]
    return [
        {"id": unit["id"], "source": unit["source"], "documents": str(path), "verdicts": [str(files[rank]) for files in columns]}
        for rank, (unit, path) in enumerate(zip(documents.units, documents.files("documents"), strict=True))
    ]


def kept_rows(unit: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """The documents of a unit that no earlier stage rejected: bool [rows].

    Raises:
        ValueError: a verdict file that is not row-aligned with the documents.
    """
    documents = Path(unit["documents"])
    with pq.ParquetFile(documents) as file:
        kept = np.ones(file.metadata.num_rows, bool)
    for path in unit["verdicts"]:
        accepted = artifact.read_table(Path(path), ["reason"])["reason"].is_null().to_numpy()
        if len(accepted) != len(kept):
            raise ValueError(
                f"{path}: {len(accepted)} verdicts for the {len(kept)} documents of {documents}; make the earlier stage again."
            )
        kept &= accepted
    return kept
