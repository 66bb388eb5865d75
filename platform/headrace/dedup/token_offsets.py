"""Where the tokens of a text are in it: between ranges of tokens and ranges of code points, in both directions.

A token of a byte-level tokenizer may hold a part of a code point, so several tokens can touch the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from headrace import schema, storage
from headrace.dedup.token_ids import TokenIds
from headrace.text.encoding import Spelling, cached_spelling, cached_tokenizer
from headrace.verdicts import text_batches

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class TokenOffsets:
    """The code points that each token of a text touches, begins[i] to ends[i]; neither falls from token to token."""

    begins: Int32s  # [N]
    ends: Int32s  # [N]

    @classmethod
    def spelled(cls, ids: npt.NDArray[np.unsignedinteger[Any]], spelling: Spelling) -> TokenOffsets:
        """From the ids alone, where they spell the text."""
        begun = spelling.begun[ids]
        ends = np.cumsum(begun, dtype=np.int32)
        begun += spelling.inside[ids]
        return cls(ends - begun, ends)

    @classmethod
    def looked_up(cls, tokenizer: Tokenizer, text: str) -> TokenOffsets:
        """From the tokenizer, which encodes the text again; code points that it leaves out (white space, maybe) are touched by none."""
        offsets = np.array(tokenizer.encode(text, add_special_tokens=False).offsets, np.int32).reshape(-1, 2)
        begins, ends = np.maximum.accumulate(offsets)[:, 0], np.maximum.accumulate(offsets)[:, 1]
        return cls(begins, ends)

    def touched(self, start: Int64s, end: Int64s) -> tuple[Int64s, Int64s]:
        """Ranges of tokens that touch ranges of code points."""
        first = np.searchsorted(self.ends, start, side="right")
        return first, np.maximum(first, np.searchsorted(self.begins, end, side="left"))

    def inside(self, start: Int64s, end: Int64s) -> tuple[Int64s, Int64s]:
        """Ranges of the code points that ranges of tokens hold whole; some may be empty.

        Args:
            start, end: int64 [R], in order and apart. Between ranges that touch a code point is shared out, for none of it stays.
        """
        before = np.where(start > 0, self.ends[start - 1], self.begins[0])
        behind = np.where(end < len(self.ends), self.begins[np.minimum(end, len(self.ends) - 1)], self.ends[-1])
        left, right = np.maximum(self.begins[start], before), np.minimum(self.ends[end - 1], behind)
        opens = np.ones(len(start), bool)
        opens[1:] = start[1:] != end[:-1]
        first = np.maximum.accumulate(np.where(opens, np.arange(len(start)), 0))
        return np.where(opens, left, np.maximum(left[first], np.roll(right, 1))), right


def offsets_of(unit: Mapping[str, Any], held: TokenIds, rows: Int64s) -> Iterator[tuple[int, TokenOffsets]]:
    """Rows among the ids of a documents file, in some order, and where the tokens of each are; text is read where ids do not tell."""
    path = str(storage.local(unit["token"]["tokenizer"]))
    spelling = cached_spelling(path)
    for row in rows[held.spelled[rows]].tolist():
        yield row, TokenOffsets.spelled(held.ids[held.start[row] : held.start[row] + held.tokens[row]], spelling)
    unspelled = rows[~held.spelled[rows]]
    if len(unspelled):
        with pq.ParquetFile(storage.local(unit["documents"])) as file:
            wanted = np.zeros(file.metadata.num_rows, bool)
        wanted[schema.rows_of(held.doc[unspelled])] = True
        for docs, texts in text_batches(Path(unit["documents"]), wanted):
            for row, text in zip(held.rows_of(docs).tolist(), texts.to_pylist()):
                offsets = TokenOffsets.looked_up(cached_tokenizer(path), text)
                assert len(offsets.begins) == held.tokens[row], f"document {held.doc[row]}: encoded again, its tokens are others"
                yield row, offsets
