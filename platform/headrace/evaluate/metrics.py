"""Scores of a set of documents, each with its standard error: one frozen configuration and one pure method a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from headrace.config import Config

RESAMPLES = 1000  # bootstrap samples: the 2.5 % quantile then rests on 25 of them
CHUNK = 1 << 22  # document draws held at once


@dataclass(frozen=True)
class DocumentScores:
    """What a language model made of N excerpts.

    source: the name of each one's source. doc, tokens (scored ones), num_bytes (of the scored tokens), correct (tokens that were the
    most probable next ones): int64 [N]; nats: float64 [N], negative log-likelihood summed over the scored tokens.
    """

    source: list[str]
    doc: np.ndarray
    tokens: np.ndarray
    num_bytes: np.ndarray
    nats: np.ndarray
    correct: np.ndarray

    def of(self, source: str | None) -> dict[str, np.ndarray]:
        """The columns of one source's documents, or of all."""
        rows = np.array([source is None or name == source for name in self.source], dtype=bool)
        return {name: getattr(self, name)[rows] for name in ("tokens", "num_bytes", "nats", "correct")}


class BitsPerByte(Config):
    """Bits per UTF-8 byte: independent of the tokenizer, so the primary score."""

    name: Literal["bits_per_byte"] = "bits_per_byte"
    columns: ClassVar[tuple[str, ...]] = ("nats", "num_bytes")
    unit: ClassVar[str] = "bits/byte"

    def score(self, nats: np.ndarray, num_bytes: np.ndarray) -> np.ndarray:
        """Bits per UTF-8 byte, lower is better; nats: float64 [..., N], summed per document; num_bytes: int64 [..., N]."""
        return nats.sum(axis=-1) / (math.log(2) * num_bytes.sum(axis=-1))


class TokenPerplexity(Config):
    """Perplexity per token: comparable between models of one tokenizer only."""

    name: Literal["token_perplexity"] = "token_perplexity"
    columns: ClassVar[tuple[str, ...]] = ("nats", "tokens")
    unit: ClassVar[str] = "perplexity/token"

    def score(self, nats: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """exp(nats per scored token), lower is better, at least 1; nats: float64 [..., N]; tokens: int64 [..., N]."""
        return np.exp(nats.sum(axis=-1) / tokens.sum(axis=-1))


class NextTokenAccuracy(Config):
    """How often the most probable next token is the true one."""

    name: Literal["next_token_accuracy"] = "next_token_accuracy"
    columns: ClassVar[tuple[str, ...]] = ("correct", "tokens")
    unit: ClassVar[str] = "share of tokens"

    def score(self, correct: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Share of scored tokens, between 0 and 1, higher is better; correct, tokens: int64 [..., N]."""
        return correct.sum(axis=-1) / tokens.sum(axis=-1)


Metric = BitsPerByte | TokenPerplexity | NextTokenAccuracy
MetricConfig = Annotated[Metric, Field(discriminator="name")]
METRICS: tuple[Metric, ...] = (BitsPerByte(), TokenPerplexity(), NextTokenAccuracy())


@dataclass(frozen=True)
class Estimate:
    """A score; its standard error and 95 % interval are absent for fewer than two documents."""

    value: float
    stderr: float | None
    ci95: tuple[float, float] | None
    n_documents: int


def estimate(metric: Metric, columns: Mapping[str, np.ndarray], seed: int = 0) -> Estimate:
    """A metric over documents, with the bootstrap over documents for its error.

    Documents are the unit of sampling, since the tokens of one are not independent; the interval is the percentile interval of
    1000 resamples.

    Args:
        columns: what `metric.columns` names, each [N], N >= 1.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapters 6 and 13.
    """
    used = [columns[name] for name in metric.columns]
    documents = len(used[0])
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # a diverged model scores inf or nan, and is to be seen doing so
        value = float(metric.score(*used))
        if documents < 2:
            return Estimate(value, None, None, documents)
        generator = np.random.default_rng(seed)
        scores: list[np.ndarray] = []
        rows = max(1, CHUNK // documents)
        for done in range(0, RESAMPLES, rows):
            draw = generator.integers(0, documents, size=(min(rows, RESAMPLES - done), documents))
            scores.append(metric.score(*[column[draw] for column in used]))
    resampled = np.concatenate(scores)
    if not np.isfinite(resampled).all():
        return Estimate(value, None, None, documents)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(value, float(resampled.std(ddof=1)), (float(low), float(high)), documents)


def row_of(metric: Metric, source: str, columns: Mapping[str, np.ndarray], **part: str) -> dict[str, Any]:
    """A metric's result row; `part`: which documents of the source it is taken over, where that is not all."""
    found = estimate(metric, columns)
    return {
        "metric": metric.name,
        "source": source,
        **part,
        "value": found.value if math.isfinite(found.value) else None,
        "stderr": found.stderr,
        "ci95": list(found.ci95) if found.ci95 else None,
        "n_documents": found.n_documents,
        "unit": metric.unit,
    }


def rows(scores: DocumentScores) -> list[dict[str, Any]]:
    """Every metric over all documents ("all", pooled: weighted by what was scored) and for each source, as result rows."""
    result = []
    for source in [None, *sorted(set(scores.source))]:
        columns = scores.of(source)
        if not len(columns["tokens"]):
            continue
        for metric in METRICS:
            result.append(row_of(metric, source or "all", columns))
    return result
