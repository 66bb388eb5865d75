"""Rules for source code: drop what was generated, packed or encoded rather than written.

Sources: Chen et al. 2021 (Codex), arXiv:2107.03374, section 3.1 (the rules); Li et al. 2023 (StarCoder), arXiv:2305.06161, and
bigcode-project/bigcode-dataset, preprocessing/README.md, "basic" filter (the thresholds).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import NonNegativeFloat, NonNegativeInt

from headrace.config import Config
from headrace.filters.thresholds import Threshold, first_breach


class CodeQuality(Config):
    """Bounds are inclusive. Lines are physical ones: blank ones count, and so does what a line is indented by."""

    name: Literal["code_quality"] = "code_quality"
    max_line_chars: NonNegativeInt = 1000  # code points of the longest line
    max_mean_line_chars: NonNegativeFloat = 100.0
    min_alphanumeric_fraction: NonNegativeFloat = 0.25  # letters and digits, of all code points

    measures: ClassVar[tuple[str, ...]] = ("max_line_chars", "mean_line_chars", "alphanumeric_fraction")

    def verdict(self, measured: pa.Table) -> pa.ChunkedArray:
        """Why each document is dropped, null where it is kept; the tests run in the order of the fields. An empty text is dropped."""
        return first_breach(
            self.name,
            measured,
            [
                Threshold("max_line_chars", "max", self.max_line_chars, "line_too_long"),
                Threshold("mean_line_chars", "max", self.max_mean_line_chars, "lines_too_long"),
                Threshold("alphanumeric_fraction", "min", self.min_alphanumeric_fraction, "too_few_alphanumerics"),
            ],
        )
