"""Parts cut out of texts: ranges of code points, merged, and what is left of a text without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cuts:
    """Ranges [start, end) of code points to be left out of documents: sorted by document and start, apart from one another."""

    doc: Int64s
    start: Int64s
    end: Int64s

    @classmethod
    def merged(cls, doc: Int64s, start: Int64s, end: Int64s) -> Cuts:
        """From ranges in any order that may overlap or touch; empty ones are left out."""
        some = end > start
        doc, start, end = doc[some], start[some], end[some]
        order = np.lexsort((start, doc))
        doc, start, end = doc[order], start[order], end[order]
        opens = np.ones(len(doc), bool)
        opens[1:] = doc[1:] != doc[:-1]
        # How far the ranges of the document have come: a running maximum that no document carries over into the next.
        shift = np.cumsum(opens) * (int(end.max(initial=0)) + 1)
        reach = np.maximum.accumulate(end + shift) - shift
        opens[1:] |= start[1:] > reach[:-1]
        last = np.append(np.flatnonzero(opens)[1:] - 1, len(doc) - 1) if len(doc) else np.empty(0, np.int64)
        return cls(doc[opens], start[opens], reach[last])

    def of(self, doc: int) -> list[tuple[int, int]]:
        """The ranges of one document, in order."""
        low, high = np.searchsorted(self.doc, [doc, doc + 1])
        return list(zip(self.start[low:high].tolist(), self.end[low:high].tolist()))


def remaining(text: str, cuts: Sequence[tuple[int, int]]) -> str:
    """`text` without these ranges of code points, which are in order and apart: the pieces left, joined as they are.

    Raises:
        ValueError: a range that leaves the text, so it is not of this text.
    """
    if not cuts:
        return text
    if cuts[0][0] < 0 or cuts[-1][1] > len(text):
        raise ValueError(f"a cut of [{cuts[0][0]}, {cuts[-1][1]}) in a text of {len(text)} code points; it is another text's.")
    ends = [0, *(end for _, end in cuts)]
    starts = [*(start for start, _ in cuts), len(text)]
    return "".join(text[end:start] for end, start in zip(ends, starts))
