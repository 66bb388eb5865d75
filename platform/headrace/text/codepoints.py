"""Classes of Unicode code points, as tables that compiled code can read."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

SPACE, ALPHABETIC, ALPHANUMERIC = 1, 2, 4  # bits of a class
_CODE_POINTS = 0x110000


@cache
def class_tables() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Two-stage table of every code point's class: `classes[pages[c >> 8], c & 255]`.

    The bits are what `str.isspace`, `str.isalpha` and `str.isalnum` answer in the running Python, so the Unicode version is that of
    `unicodedata.unidata_version`: a newer one only adds letters to code points that were unassigned.

    Returns:
        pages uint8 [4352] and classes uint8 [distinct pages, 256]; some 36 kB together, where a flat table would be 1.1 MB.
    """
    characters = np.arange(_CODE_POINTS, dtype=np.uint32).view("U1")
    flat = (
        np.char.isspace(characters) * np.uint8(SPACE)
        + np.char.isalpha(characters) * np.uint8(ALPHABETIC)
        + np.char.isalnum(characters) * np.uint8(ALPHANUMERIC)
    )
    blocks = flat.astype(np.uint8).reshape(-1, 256).view("V256").ravel()
    distinct, pages = np.unique(blocks, return_inverse=True)
    assert len(distinct) <= 256
    return pages.astype(np.uint8), distinct.view(np.uint8).reshape(-1, 256)
