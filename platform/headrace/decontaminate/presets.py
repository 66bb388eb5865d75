"""What counts as contamination and what is done about it: the published rules as presets of one set of settings."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from headrace.config import Config

Preset = Literal["drop-any-n", "gpt3-cut", "palm-ratio", "paragraph-ratio"]
Judged = Literal["ngram", "item", "paragraph"]

# Every preset gives every setting a value; `null` turns the setting off.
PRESETS: dict[str, dict[str, Any]] = {
    # Any n-gram of an item removes the document. GPT-3 began with n = 13 (Brown et al. 2020, arXiv:2005.14165, appendix C: "removing
    # entire documents given a single collision"); datatrove's n-gram decontamination has n = 12.
    "drop-any-n": {"n": 13, "judge": "ngram", "share": None, "action": "drop", "margin_chars": 0, "min_piece_chars": 0,
                   "max_pieces": None, "max_documents": None},
    # What GPT-3 ended with (ibid.): the n-gram goes with 200 characters on either side; pieces under 200 characters go, too; documents
    # in more than 10 pieces go whole; n-grams in more than 10 documents say nothing.
    "gpt3-cut": {"n": 13, "judge": "ngram", "share": None, "action": "cut", "margin_chars": 200, "min_piece_chars": 200,
                 "max_pieces": 10, "max_documents": 10},
    # An item is contaminated when 70 % of its 8-grams occur in the training text (Chowdhery et al. 2022, arXiv:2204.02311, section
    # 8). PaLM marks such items and removes nothing; here a document that holds 70 % of an item by itself is dropped.
    "palm-ratio": {"n": 8, "judge": "item", "share": 0.7, "action": "drop", "margin_chars": 0, "min_piece_chars": 0, "max_pieces": None,
                   "max_documents": None},
    # A paragraph is contaminated when half of its 13-grams occur in items, as in Marin's decontamination (datakit/decon.py: n-grams
    # within a block between blank lines, overlap of at least 0.5), which marks the document. Dolma's (Soldaini et al. 2024,
    # arXiv:2402.00159) drops it: `action: drop`. Here the paragraph is cut, which is what was found to be an item's.
    "paragraph-ratio": {"n": 13, "judge": "paragraph", "share": 0.5, "action": "cut", "margin_chars": 0, "min_piece_chars": 0,
                        "max_pieces": None, "max_documents": None},
}  # fmt: skip


class Benchmark(Config):
    """An evaluation set: JSON Lines, plain or compressed (.gz, .zst, .lz4), an item a line."""

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    path: str
    # The fields that make up an item's text, in the order in which the text would be met with; `a.b` is field b of the object a. A list
    # of fields, like a field that holds a list, stands for alternatives that may each follow what is before them. null: all strings of
    # the record but its id and what is a single word (labels, names), which says nothing of a text.
    fields: Annotated[tuple[str | tuple[str, ...], ...], Field(min_length=1)] | None = None


class Decontaminate(Config):
    """Which evaluation sets must not be in the training text, and what is done where they are. Settings not given are the preset's."""

    preset: Preset = "drop-any-n"
    benchmarks: Annotated[tuple[Benchmark, ...], Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=64)]  # words of an n-gram
    # What contaminates a document: an n-gram; an item of which it holds at least `share` of the n-grams; a paragraph of which at
    # least `share` of the n-grams are those of items.
    judge: Judged
    share: Annotated[float, Field(gt=0, le=1)] | None
    action: Literal["drop", "cut"]  # the document; or the n-grams, the item's n-grams, the paragraph that contaminate it
    margin_chars: Annotated[int, Field(ge=0)]  # code points that are cut on either side, too
    min_piece_chars: Annotated[int, Field(ge=0)]  # code points; what is left between cuts and is shorter goes, too
    max_pieces: PositiveInt | None  # a document that cuts leave in more pieces is dropped; null: never
    # N-grams found in more documents say nothing: quotations, licences, idioms. So does a benchmark that was copied that often; null
    # lets every n-gram speak.
    max_documents: PositiveInt | None

    @model_validator(mode="before")
    @classmethod
    def settings_of_the_preset(cls, given: Any) -> Any:
        """Fill in what is not given; an unknown preset is left for the field to refuse."""
        if not isinstance(given, dict):
            return given
        return {**PRESETS.get(str(given.get("preset", "drop-any-n")), PRESETS["drop-any-n"]), **given}

    @model_validator(mode="after")
    def settings_fit_together(self) -> Decontaminate:
        if (self.share is None) != (self.judge == "ngram"):
            how = "counts every n-gram and takes no share" if self.judge == "ngram" else "needs a share"
            raise ValueError(f"share = {self.share}: judge: {self.judge} {how}")
        if self.action == "drop" and (self.margin_chars or self.min_piece_chars or self.max_pieces):
            raise ValueError("action: drop removes documents whole; margin_chars, min_piece_chars and max_pieces belong to action: cut")
        twice = sorted(name for name, times in Counter(benchmark.name for benchmark in self.benchmarks).items() if times > 1)
        if twice:
            raise ValueError(f"benchmarks: {', '.join(twice)} is the name of more than one; a name tells their items apart")
        return self

    def rules(self) -> dict[str, Any]:
        """The settings that judge, without the name of the preset and without the benchmarks."""
        return self.model_dump(mode="json", exclude={"preset", "benchmarks"})
