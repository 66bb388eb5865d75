"""Characters for deduplication: the code points of the lower-cased text, every run of white space one space, none at the ends.

White space is what `str.isspace` says. n-grams of characters suit scripts that are written without spaces, where runs of `\\w` are whole
sentences; they weigh a document's every letter, so there are about six times as many as of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, uint64

from headrace.text.codepoints import SPACE, class_tables

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)  # MurmurHash3's finaliser (Appleby 2011)


def character_hashes(texts: Sequence[str]) -> tuple[Int64s, Uint64s]:
    """Hashes of the characters of each text, in order; `shingles.ngrams` makes n-grams of them.

    Returns:
        offsets int64 [N + 1] and hashes uint64 [C]: those of text i are hashes[offsets[i]:offsets[i + 1]].
    """
    # A final sigma depends on its neighbours and U+0130 becomes two code points: only `str.lower` knows, and it is quick.
    lowered = pa.array([text.lower() for text in texts], pa.large_string())
    _, offset_buffer, data_buffer = lowered.buffers()
    starts = np.frombuffer(offset_buffer, np.int64, len(texts) + 1)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None and starts[-1] else np.empty(0, np.uint8)
    hashes = np.empty(int(starts[-1]), np.uint64)  # pages that are never written cost nothing
    offsets = np.empty(len(texts) + 1, np.int64)
    return offsets, hashes[: _hash_characters(data, starts, *class_tables(), offsets, hashes)]


@njit(inline="always")
def _mix(value: Any) -> Any:
    value = (value ^ (value >> uint64(33))) * _MIX_1
    value = (value ^ (value >> uint64(33))) * _MIX_2
    return value ^ (value >> uint64(33))


@njit(nogil=True, cache=True)
def _hash_characters(data: Any, starts: Any, pages: Any, classes: Any, offsets: Any, hashes: Any) -> int:
    """Fill `offsets` and `hashes`; the number of characters. `data` is valid UTF-8, cut into texts at `starts`."""
    total = 0
    offsets[0] = 0
    for text in range(len(starts) - 1):
        position = starts[text]
        gap = False  # white space since the last character
        while position < starts[text + 1]:
            first = data[position]
            if first < 0x80:
                code = uint64(first)
                position += 1
            elif first < 0xE0:
                code = uint64(first & 0x1F) << uint64(6) | uint64(data[position + 1] & 0x3F)
                position += 2
            elif first < 0xF0:
                code = uint64(first & 0x0F) << uint64(12) | uint64(data[position + 1] & 0x3F) << uint64(6)
                code |= uint64(data[position + 2] & 0x3F)
                position += 3
            else:
                code = uint64(first & 0x07) << uint64(18) | uint64(data[position + 1] & 0x3F) << uint64(12)
                code |= uint64(data[position + 2] & 0x3F) << uint64(6) | uint64(data[position + 3] & 0x3F)
                position += 4
            if classes[pages[code >> uint64(8)], code & uint64(255)] & SPACE:
                gap = True
                continue
            if gap and total > offsets[text]:
                hashes[total] = _mix(uint64(32))
                total += 1
            gap = False
            hashes[total] = _mix(code)
            total += 1
        offsets[text + 1] = total
    return total
