"""Which documents are worth training on: documents -> measures -> verdicts, by a chain of filters that the source chooses.

Adding a filter: one file with a frozen config, its `measures` and `verdict`, and its name in `FilterConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from headrace.filters.code_quality import CodeQuality
from headrace.filters.gopher_quality import GopherQuality
from headrace.filters.gopher_repetition import GopherRepetition
from headrace.filters.measures import MEASURES, N_GRAMS, measure

__all__ = [
    "MEASURES",
    "CodeQuality",
    "FilterConfig",
    "GopherQuality",
    "GopherRepetition",
    "SourceKind",
    "annotate",
    "default_chain",
    "measure",
]

FilterConfig = Annotated[GopherQuality | GopherRepetition | CodeQuality, Field(discriminator="name")]
SourceKind = Literal["web", "book", "conversation", "science", "code", "multilingual", "prose"]

PROSE: tuple[FilterConfig, ...] = (GopherQuality(), GopherRepetition())

# A book was written and chosen by somebody, in any language, and is as long as it is.
BOOK: tuple[FilterConfig, ...] = (GopherQuality(max_words=None, min_stop_words=0), GopherRepetition())

# A question and its answer are whole in far fewer than 50 words: two lines of the five words that C4's code asks of a line (Raffel et
# al. 2020, arXiv:1910.10683, section 2.2) are enough. Talk comes in any language, and holds code, tables, times and marks between
# turns: the length of words is not looked at, and half of them may be without a letter. Greetings, choruses and quoted code return:
# repeated lines and paragraphs count by their characters, not by their number, and in so short a text the top n-gram is large even
# when it occurs once.
CONVERSATION: tuple[FilterConfig, ...] = (
    GopherQuality(min_words=10, min_mean_word_chars=0, max_mean_word_chars=None, min_alpha_word_fraction=0.5, min_stop_words=0),
    GopherRepetition(
        max_dup_paragraph_fraction=None,
        max_dup_line_fraction=None,
        max_top_2_gram_char_fraction=None,
        max_top_3_gram_char_fraction=None,
        max_top_4_gram_char_fraction=None,
    ),
)

# LaTeX and formulas: commands make words long and symbols many, \begin{proof} is a line of its own a hundred times, definitions
# resemble each other. What is left of Gopher is a minimum of words, of which half have a letter, and the share of characters in
# repeated lines and paragraphs.
SCIENCE: tuple[FilterConfig, ...] = (
    GopherQuality(
        max_words=None,
        min_mean_word_chars=0,
        max_mean_word_chars=None,
        max_hash_word_ratio=None,
        max_ellipsis_word_ratio=None,
        max_bullet_line_fraction=None,
        max_ellipsis_line_fraction=None,
        min_alpha_word_fraction=0.5,
        min_stop_words=0,
    ),
    GopherRepetition.model_validate(
        dict.fromkeys(f"max_{name}" for name in ("dup_paragraph_fraction", "dup_line_fraction", *N_GRAMS))  # null: off
    ),
)

CODE: tuple[FilterConfig, ...] = (CodeQuality(),)

# Words are told by whitespace, which Chinese, Japanese or Thai do without: nothing here counts words or their length, and a single
# sentence may be a text's top n-gram. A word with a letter in it is still what most of a text should be made of. Stop words are English.
MULTILINGUAL: tuple[FilterConfig, ...] = (
    GopherQuality(min_words=0, min_mean_word_chars=0, max_mean_word_chars=None, min_alpha_word_fraction=0.5, min_stop_words=0),
    GopherRepetition(max_top_2_gram_char_fraction=None, max_top_3_gram_char_fraction=None, max_top_4_gram_char_fraction=None),
)


def default_chain(kind: SourceKind) -> tuple[FilterConfig, ...]:
    """The filters of a source that names none: thresholds as published, fewer of them where the rules of English prose do not speak."""
    chains: dict[SourceKind, tuple[FilterConfig, ...]] = {
        "web": PROSE,
        "prose": PROSE,
        "book": BOOK,
        "conversation": CONVERSATION,
        "science": SCIENCE,
        "code": CODE,
        "multilingual": MULTILINGUAL,
    }
    return chains[kind]


def chain_measures(chain: Sequence[FilterConfig]) -> tuple[str, ...]:
    """What the filters of a chain need, each once, in the order of `MEASURES`."""
    needed = {name for rule in chain for name in rule.measures}
    return tuple(name for name in MEASURES if name in needed)


def annotate(docs: pa.Table, chain: Sequence[FilterConfig]) -> pa.Table:
    """Verdicts on documents, row by row.

    Args:
        docs: with columns `doc` int64 and `text` string, N rows.

    Returns:
        N rows: `doc`; `reason`, that of the first filter in the chain that objects, else null; and the measures of the chain. An
        empty chain keeps every document.
    """
    measured = measure(docs["text"], chain_measures(chain))
    kept = pa.chunked_array([pa.nulls(docs.num_rows, pa.string())])
    reason = pc.coalesce(*(rule.verdict(measured) for rule in chain), kept)
    return pa.table([docs["doc"], reason, *measured.columns], schema=verdict_schema(chain))


def verdict_schema(chain: Sequence[FilterConfig]) -> pa.Schema:
    """Columns of `annotate`."""
    base = [pa.field("doc", pa.int64(), nullable=False), pa.field("reason", pa.string())]
    return pa.schema([*base, *(pa.field(name, MEASURES[name], nullable=False) for name in chain_measures(chain))])
