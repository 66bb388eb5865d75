"""Exact duplicates: documents whose normalised texts have the same 128-bit hash.

Normalisation `whitespace-1`: Unicode NFC, every run of white space (`str.isspace`) one space, none at the ends; case and punctuation
stay. At 128 bits two different texts among 10^12 meet with probability 10^-15, so equal hashes are taken for equal texts.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from headrace.text.whitespace import collapsed

NORMALISATION = "whitespace-1"

# Rows of the exact shuffle: sorting by these columns puts the members of a group side by side, the one to keep first.
EXACT = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), ("preference", pa.int32()), ("doc", pa.int64())])
EXACT_REMOVED = pa.schema([("rank", pa.int32()), ("doc", pa.int64()), ("kept", pa.int64()), ("kept_preference", pa.int32())])


def normalised(text: str) -> str:
    """`text` under the normalisation `whitespace-1`: its definition, which `content_hashes` follows many texts at a time."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def content_hashes(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """xxh3-128 of each normalised text in UTF-8: its high and low 64 bits, both uint64 [N]."""
    offsets, data = collapsed([text if text.isascii() else unicodedata.normalize("NFC", text) for text in texts])
    content = data.data
    digests = b"".join(xxhash.xxh3_128_digest(content[start:stop]) for start, stop in itertools.pairwise(offsets.tolist()))
    halves = np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)
    return halves[:, 0].copy(), halves[:, 1].copy()


def removed_copies(rows: pa.Table) -> pa.Table:
    """Every document of a group but its first by (preference, document number): a reduce from `EXACT` to `EXACT_REMOVED` rows.

    Documents of an index, whose preference is negative, are what others repeat and stay out of the result themselves.
    """
    high, low, preference, doc = (rows[name].to_numpy() for name in EXACT.names)
    starts = np.ones(len(doc), bool)
    starts[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    first = np.maximum.accumulate(np.where(starts, np.arange(len(doc)), 0))
    copies = ~starts & (preference >= 0)
    removed = doc[copies]
    columns = [(removed >> 32).astype(np.int32), removed, doc[first[copies]], preference[first[copies]]]
    return pa.table([pa.array(column) for column in columns], schema=EXACT_REMOVED)
