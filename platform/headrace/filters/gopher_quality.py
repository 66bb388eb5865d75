"""Quality rules of Gopher (Rae et al. 2021, arXiv:2112.11446, appendix A1.1): does a text look like prose?"""

from __future__ import annotations

from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import NonNegativeFloat, NonNegativeInt

from headrace.config import Config
from headrace.filters.thresholds import Threshold, first_breach


class GopherQuality(Config):
    """Bounds are inclusive: a document at the bound is kept. A minimum of 0 and a maximum of null keep their test off."""

    name: Literal["gopher_quality"] = "gopher_quality"
    min_words: NonNegativeInt = 50  # words that have a letter or digit
    max_words: NonNegativeInt | None = 100_000
    min_mean_word_chars: NonNegativeFloat = 3.0  # code points a word
    max_mean_word_chars: NonNegativeFloat | None = 10.0
    max_hash_word_ratio: NonNegativeFloat | None = 0.1  # "#" a word
    max_ellipsis_word_ratio: NonNegativeFloat | None = 0.1  # "..." or "…" a word
    max_bullet_line_fraction: NonNegativeFloat | None = 0.9  # of the lines
    max_ellipsis_line_fraction: NonNegativeFloat | None = 0.3  # of the lines
    min_alpha_word_fraction: NonNegativeFloat = 0.8  # words with a letter, of all words
    min_stop_words: NonNegativeInt = 2  # different ones of `measures.STOP_WORDS`; 0 for a source that is not English

    measures: ClassVar[tuple[str, ...]] = (
        "words",
        "mean_word_chars",
        "hash_word_ratio",
        "ellipsis_word_ratio",
        "bullet_line_fraction",
        "ellipsis_line_fraction",
        "alpha_word_fraction",
        "stop_words",
    )

    def verdict(self, measured: pa.Table) -> pa.ChunkedArray:
        """Why each document is dropped, null where it is kept; the tests run in the order of the fields."""
        return first_breach(
            self.name,
            measured,
            [
                Threshold("words", "min", self.min_words, "too_few_words"),
                Threshold("words", "max", self.max_words, "too_many_words"),
                Threshold("mean_word_chars", "min", self.min_mean_word_chars, "words_too_short"),
                Threshold("mean_word_chars", "max", self.max_mean_word_chars, "words_too_long"),
                Threshold("hash_word_ratio", "max", self.max_hash_word_ratio, "too_many_hashes"),
                Threshold("ellipsis_word_ratio", "max", self.max_ellipsis_word_ratio, "too_many_ellipses"),
                Threshold("bullet_line_fraction", "max", self.max_bullet_line_fraction, "too_many_bullet_lines"),
                Threshold("ellipsis_line_fraction", "max", self.max_ellipsis_line_fraction, "too_many_ellipsis_lines"),
                Threshold("alpha_word_fraction", "min", self.min_alpha_word_fraction, "too_few_alpha_words"),
                Threshold("stop_words", "min", self.min_stop_words, "too_few_stop_words"),
            ],
        )
