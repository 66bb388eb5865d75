"""Arrow schema of what the stages write: one place for the columns that cross a stage's border."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

DOCUMENTS = pa.schema(
    [
        pa.field("doc", pa.int64(), nullable=False),  # rank of the file among ingest's units << 32 | row in the file
        pa.field("id", pa.string(), nullable=False),  # the input's own id, or <path>#<offset or row>; may repeat
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("lang", pa.string()),
        pa.field("url", pa.string()),
        pa.field("meta", pa.string()),  # JSON object of the fields that have no column
    ]
)

QUARANTINE = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("offset", pa.int64()),  # bytes into the decompressed file, or the record's number
        pa.field("reason", pa.string(), nullable=False),
        pa.field("first_bytes", pa.binary()),
    ]
)

REMOVED = pa.schema(
    [
        pa.field("doc", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),  # document | sentence | token | line | ngram | paragraph
        pa.field("start", pa.int64()),  # code points into the text; null for a whole document
        pa.field("end", pa.int64()),
        pa.field("kept_id", pa.string()),
        pa.field("score", pa.float32()),
    ]
)

SPLIT = pa.schema(
    [
        pa.field("doc", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),  # the part: train | validation; null where an earlier stage rejected the document
    ]
)


def file_rank(doc: int) -> int:
    """Rank of the documents file that holds `doc`."""
    return doc >> 32


def rows_of(docs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Row in its documents file of each of these documents: int64 [N]."""
    return docs & 0xFFFFFFFF


def first_doc(rank: int) -> int:
    """Number of the first document of the documents file with this rank."""
    return rank << 32


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 that holds every token id; little-endian on disk."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
