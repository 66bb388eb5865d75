"""What the levels hand to one another and to the verdicts: documents dropped whole, and parts cut out of those that stay.

Every level leaves work/<level>-dropped/<unit>.parquet, and the levels below the document also work/<level>-cuts/<unit>.parquet. A
level looks at what those before it left standing, so text that is already gone never counts as the first of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace import artifact, schema
from headrace.verdicts import kept_rows

LEVELS = ("document", "sentence", "token")

# Sorted by doc. `kept` and `score` are null for a document of which too little was left.
DROPPED = pa.schema([("doc", pa.int64()), ("reason", pa.string()), ("kept", pa.int64()), ("score", pa.float32())])

# Sorted by doc and start; the cuts of a document at one level do not overlap. Code points into the text, end exclusive. `kept` is a
# document that holds the same text and comes first by (preference, document number); it may be the document itself.
CUTS = pa.schema([("doc", pa.int64()), ("start", pa.int64()), ("end", pa.int64()), ("kept", pa.int64())])


def standing_rows(unit: Mapping[str, Any], level: str) -> npt.NDArray[np.bool_]:
    """bool [rows] of one documents file: kept by the earlier stages and by the levels before this one."""
    standing = kept_rows(unit)
    for dropped in tables_before(unit, level, "dropped"):
        standing[schema.rows_of(dropped["doc"].to_numpy())] = False
    return standing


def tables_before(unit: Mapping[str, Any], level: str, kind: str) -> list[pa.Table]:
    """What the levels before this one left for one documents file: its DROPPED or CUTS tables."""
    earlier = LEVELS[: LEVELS.index(level)]
    return [read_level(unit, name, kind) for name in earlier if unit[name] and (kind == "dropped" or name != "document")]


def read_level(unit: Mapping[str, Any], level: str, kind: str) -> pa.Table:
    """The DROPPED or CUTS table of one level and documents file."""
    return artifact.read_table(Path(unit["work"]) / f"{level}-{kind}" / f"{unit['id']}.parquet")


def write_level(table: pa.Table, unit: Mapping[str, Any], folder: Path, level: str, kind: str) -> None:
    """Leave it for the levels to come and for the verdicts."""
    artifact.write_table(table, folder / "work" / f"{level}-{kind}" / f"{unit['id']}.parquet")
