"""Shingle sets of the documents of one file, laid out flat on disk: comparing two documents costs the pages that their sets lie on.

The file is a row of 64-bit words in this machine's order: a magic number, the number of documents N and of shingles S; the documents' rows
(N), the starts of their sets (N + 1), a sum of each set (N), and the shingles (S), each set sorted and distinct. The sums are what tells
a flipped bit from a shingle.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from headrace import storage

MAGIC = 0x3130535445535248  # "HRSETS01"
HEADER = 3  # words

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]


class SetWriter:
    """Writes the sets of a known number of documents as they come, in the order of their rows."""

    def __init__(self, path: Path, documents: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._documents = documents
        self._file.seek(8 * (HEADER + 3 * documents + 1))
        self._rows: list[Int64s] = []
        self._sizes: list[Int64s] = []
        self._sums: list[Uint64s] = []

    def write(self, rows: Int64s, offsets: Int64s, shingles: Uint64s) -> None:
        """Sets of further documents: that of rows[i] is shingles[offsets[i]:offsets[i + 1]]."""
        self._rows.append(rows)
        self._sizes.append(np.diff(offsets))
        self._sums.append(_sums(offsets, shingles, np.arange(len(rows))))
        self._file.write(shingles.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if error is None:
                self._write_tables()

    def _write_tables(self) -> None:
        rows, sizes = (np.concatenate([np.empty(0, np.int64), *parts]) for parts in (self._rows, self._sizes))
        assert len(rows) == self._documents, f"{len(rows)} of {self._documents} documents were written"
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        sums = np.concatenate([np.empty(0, np.uint64), *self._sums])
        self._file.truncate(8 * (HEADER + 3 * len(rows) + 1 + int(starts[-1])))
        self._file.seek(0)
        for part in (np.array([MAGIC, len(rows), starts[-1]], np.int64), rows, starts, sums):
            self._file.write(part.data)


@dataclass(frozen=True)
class ShingleSets:
    """Shingle sets of some documents of one file; nothing is read before it is looked at."""

    path: Path
    rows: Int64s  # [N], ascending: the documents' rows in their file
    offsets: Int64s  # [N + 1]
    sums: Uint64s  # [N]
    shingles: Uint64s  # those of rows[i] are shingles[offsets[i]:offsets[i + 1]], sorted and distinct

    @classmethod
    def open(cls, path: Path) -> ShingleSets:
        """The sets in a file that `SetWriter` wrote.

        Raises:
            ValueError: it was cut short, or is none of these.
        """
        path = storage.local(path)
        size, left = divmod(path.stat().st_size, 8)
        words = np.asarray(np.memmap(path, np.int64, "r", shape=size)) if size >= HEADER and not left else np.zeros(HEADER, np.int64)
        documents, shingles = (int(word) for word in words[1:HEADER])
        ends = np.cumsum([HEADER, documents, documents + 1, documents, shingles])
        if words[0] != MAGIC or len(words) != ends[-1]:
            raise ValueError(f"{path}: no whole file of shingle sets; delete the stage's folder and run the same command again.")
        rows, offsets, sums, values = (words[start:end] for start, end in itertools.pairwise(ends))
        return cls(path, rows, offsets, sums.view(np.uint64), values.view(np.uint64))

    def places(self, rows: Int64s) -> Int64s:
        """Where the sets of these rows are; all of them are there, and whole.

        Raises:
            ValueError: one of the sets is not what was written.
        """
        places = np.searchsorted(self.rows, rows)
        assert len(self.rows) or not len(rows)
        assert np.array_equal(self.rows[np.minimum(places, len(self.rows) - 1)], rows)
        wanted = np.unique(places)
        damaged = wanted[_sums(self.offsets, self.shingles, wanted) != self.sums[wanted]]
        if len(damaged):
            row = self.rows[damaged[0]]
            raise ValueError(
                f"{self.path}: the shingles of row {row} are damaged; delete the stage's folder and run the same command again."
            )
        return places


@njit(nogil=True, cache=True)
def _sums(offsets: Any, shingles: Any, places: Any) -> Any:
    """Sum of each of these sets modulo 2^64: uint64 [P]."""
    sums = np.empty(len(places), np.uint64)
    for number in range(len(places)):
        total = uint64(0)
        for place in range(offsets[places[number]], offsets[places[number] + 1]):
            total += shingles[place]
        sums[number] = total
    return sums
