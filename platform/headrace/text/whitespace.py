"""Texts with every run of white space as one space and none at the ends: what `" ".join(text.split())` gives, without a list of words."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from headrace.text.codepoints import SPACE, class_tables


def collapsed(texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """The texts in UTF-8 with single spaces; white space is what `str.isspace` says.

    Returns:
        offsets int64 [N + 1] and data uint8: text i is data[offsets[i]:offsets[i + 1]].
    """
    _, offset_buffer, data_buffer = pa.array(texts, pa.large_string()).buffers()
    starts = np.frombuffer(offset_buffer, np.int64, len(texts) + 1)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None and starts[-1] else np.empty(0, np.uint8)
    left = np.empty(int(starts[-1]), np.uint8)
    offsets = np.zeros(len(texts) + 1, np.int64)
    _collapse(data, starts, _space_leads(), *class_tables(), offsets, left)
    return offsets, left[: offsets[-1]]


@functools.cache
def _space_leads() -> npt.NDArray[np.uint8]:
    """Of each byte whether it is white space by itself (1) or begins some among other characters (2): uint8 [256]."""
    pages, classes = class_tables()
    codes = np.flatnonzero(classes[pages].reshape(-1) & SPACE).tolist()
    leads = np.zeros(256, np.uint8)
    for code in codes:
        leads[chr(code).encode()[0]] = 1 if code < 128 else 2
    return leads


@njit(nogil=True, cache=True)
def _collapse(data: Any, starts: Any, leads: Any, pages: Any, classes: Any, offsets: Any, left: Any) -> None:
    """Fill `offsets` and `left`. `data` is valid UTF-8, cut into texts at `starts`."""
    total = 0
    for text in range(len(starts) - 1):
        position = starts[text]
        gap = False  # white space since the last character
        while position < starts[text + 1]:
            lead = data[position]
            if leads[lead]:
                width = 1
                if lead >= 0x80:  # white space beyond ASCII takes two or three bytes
                    code = (lead & 0x1F) << 6 | (data[position + 1] & 0x3F)
                    width = 2
                    if lead >= 0xE0:
                        code = (lead & 0x0F) << 12 | (data[position + 1] & 0x3F) << 6 | (data[position + 2] & 0x3F)
                        width = 3
                    if not classes[pages[code >> 8], code & 255] & SPACE:
                        width = 0
                if width:
                    gap = True
                    position += width
                    continue
            if gap and total > offsets[text]:
                left[total] = 32
                total += 1
            gap = False
            left[total] = lead
            total += 1
            position += 1
        offsets[text + 1] = total
