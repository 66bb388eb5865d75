"""Repetition rules of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1): does a text say the same again and again?"""

from __future__ import annotations

from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import NonNegativeFloat

from headrace.config import Config
from headrace.filters.measures import N_GRAMS
from headrace.filters.thresholds import Threshold, first_breach


class GopherRepetition(Config):
    """Largest fractions that are kept; null keeps a test off. Characters are fractions of those of the whole text."""

    name: Literal["gopher_repetition"] = "gopher_repetition"
    max_dup_paragraph_fraction: NonNegativeFloat | None = 0.30  # paragraphs that occurred before
    max_dup_paragraph_char_fraction: NonNegativeFloat | None = 0.20
    max_dup_line_fraction: NonNegativeFloat | None = 0.30
    max_dup_line_char_fraction: NonNegativeFloat | None = 0.20
    max_top_2_gram_char_fraction: NonNegativeFloat | None = 0.20  # occurrences of the most frequent pair of words
    max_top_3_gram_char_fraction: NonNegativeFloat | None = 0.18
    max_top_4_gram_char_fraction: NonNegativeFloat | None = 0.16
    max_dup_5_gram_char_fraction: NonNegativeFloat | None = 0.15  # runs of five words that occurred before
    max_dup_6_gram_char_fraction: NonNegativeFloat | None = 0.14
    max_dup_7_gram_char_fraction: NonNegativeFloat | None = 0.13
    max_dup_8_gram_char_fraction: NonNegativeFloat | None = 0.12
    max_dup_9_gram_char_fraction: NonNegativeFloat | None = 0.11
    max_dup_10_gram_char_fraction: NonNegativeFloat | None = 0.10

    measures: ClassVar[tuple[str, ...]] = (
        "dup_paragraph_fraction",
        "dup_paragraph_char_fraction",
        "dup_line_fraction",
        "dup_line_char_fraction",
        *N_GRAMS,
    )

    def verdict(self, measured: pa.Table) -> pa.ChunkedArray:
        """Why each document is dropped, null where it is kept; the tests run in the order of the fields, each named by its measure."""
        return first_breach(self.name, measured, [Threshold(name, "max", getattr(self, f"max_{name}"), name) for name in self.measures])
