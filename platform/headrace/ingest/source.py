"""One source of text in the configuration: where its files are, what they hold, how much they count."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from headrace.config import Config
from headrace.filters import FilterConfig, SourceKind

Format = Literal["jsonl", "parquet", "text", "lines", "warc"]
Pattern = Annotated[str, Field(min_length=1)]


class Source(Config):
    """A set of files that are read, filtered and weighted alike."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    kind: SourceKind
    # files, folders (read with all below) or glob patterns (** = any depth), local or all of them on S3 (s3://bucket/prefix)
    path: Pattern | Annotated[list[Pattern], Field(min_length=1)]
    # auto: by each file's extension (.jsonl .json .ndjson, .parquet, .warc .wet; everything else is a text), less .gz .zst .lz4
    format: Literal["auto", "jsonl", "parquet", "text", "lines", "warc"] = "auto"
    text_field: str = Field(default="text", min_length=1)  # of a JSON object or a Parquet row
    filters: list[FilterConfig] | None = None  # None = the default chain of the kind
    weight: PositiveFloat = 1.0  # how often a token of this source is read relative to a token of a source of weight 1
    priority: int = 0  # the lower wins where documents of two sources repeat each other

    @property
    def patterns(self) -> list[str]:
        """The paths as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path)
