"""n-gram language models over tokens: the baselines that a trained model has to beat, fitted on the same training tokens.

Unigram with add-one smoothing, and interpolated modified Kneser-Ney for the higher orders.

Source: Kneser and Ney 1995, "Improved backing-off for m-gram language modeling"; Chen and Goodman 1998, TR-10-98, section 3
(modified, discounts by equations 3.26); Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation" (raw counts
for what follows the beginning of a document).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from headrace import storage
from headrace.evaluate.config import EvaluateConfig
from headrace.evaluate.excerpts import DEFINITION, choose
from headrace.evaluate.metrics import DocumentScores, rows
from headrace.evaluate.result import publish
from headrace.tokens.store import TokenStore

Array = np.ndarray[Any, Any]

ORDER = 5
ADD_ONE = "add-one"
KNESER_NEY = "interpolated modified Kneser-Ney"
# Where the counts of counts give no discount (a count of 1 to 4 that no n-gram has), those of KenLM's --discount_fallback.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class Stream:
    """Documents end to end, each closed by the end-of-text token, with one more of it in front of the first.

    So every document stands between two end-of-text tokens: the one before it is its beginning, known and never predicted; the one
    after it is its last word. ids: uint32 [M]; depth: uint32 [M], tokens since the document's beginning, whose own depth is 0 only at
    position 0 (later it is the end of the document before).
    """

    ids: Array
    depth: Array

    @classmethod
    def of(cls, documents: Sequence[Array], eos: int) -> Stream:
        """Of pieces of text that each are one document or several, cut behind an end-of-text token; a last document may lack its end."""
        ids = np.concatenate([np.array([eos], dtype=np.uint32), *[np.asarray(piece, dtype=np.uint32) for piece in documents]])
        place = np.arange(len(ids), dtype=np.int64)
        before = np.zeros(len(ids), dtype=np.int64)
        before[1:] = np.where(ids[:-1] == eos, place[:-1], 0)
        return cls(ids, (place - np.maximum.accumulate(before)).astype(np.uint32))


@dataclass(frozen=True)
class Level:
    """The distinct n-grams of one order n. K = their number.

    keys: uint64 [K], ascending: (number of the n-1 tokens before the last) x vocabulary + last token; an n-gram's number is its place here.
    counts: int64 [K], how often each occurs. extensions: int64 [K], distinct tokens seen before it; for an n-gram that starts with the
    beginning of a document, which nothing can precede, its count; None for the highest order, which no longer n-gram extends.
    """

    keys: Array
    counts: Array
    extensions: Array | None


def count(stream: Stream, vocab_size: int, order: int) -> list[Level]:
    """Levels 1 to `order` of a stream; no n-gram crosses from one document into the next.

    Numbers of n-grams take the place of the n-grams: level n is sorted by (number of its first n-1 tokens, last token), which fits in
    64 bits for any vocabulary, so that every level costs one sort of M integers.
    """
    ids, depth = stream.ids, stream.depth
    levels: list[Level] = []
    # number[i]: of the n-gram that ends at position i, where depth[i] >= n - 1.
    number = ids
    counts = np.bincount(ids[1:], minlength=vocab_size)
    keys = np.arange(vocab_size, dtype=np.uint64)
    starts = np.zeros(vocab_size, dtype=bool)
    for length in range(2, order + 1):
        positions = np.flatnonzero(depth >= length - 1)
        if len(keys) * vocab_size >= 1 << 63:
            raise OverflowError(f"{len(keys)} distinct {length - 1}-grams over a vocabulary of {vocab_size} do not fit in 64 bits.")
        longer = number[positions - 1].astype(np.uint64) * np.uint64(vocab_size) + ids[positions]
        sort = np.argsort(longer)
        ordered = longer[sort]
        first = np.flatnonzero(np.concatenate([np.ones(min(1, len(ordered)), dtype=bool), ordered[1:] != ordered[:-1]]))
        sample = positions[sort[first]]  # where each distinct n-gram is seen once
        preceded = np.bincount(number[sample], minlength=len(keys))
        levels.append(Level(keys, counts, np.where(starts, counts, preceded)))
        keys = ordered[first]
        counts = np.diff(first, append=len(ordered))
        starts = depth[sample] == length - 1
        rank = np.zeros(len(ids), dtype=np.uint32)
        rank[positions[sort]] = np.repeat(np.arange(len(first), dtype=np.uint32), counts)
        number = rank
    return [*levels, Level(keys, counts, None)]


def discounts(counts: Array) -> tuple[float, float, float]:
    """D1, D2 and D3+ of modified Kneser-Ney from the counts of one order; the fallback where they are not defined.

    Source: Chen and Goodman 1998, equation 3.26: Y = n1 / (n1 + 2 n2), Dk = k - (k + 1) Y n(k+1) / n(k).
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    if not n[:3].all():
        return FALLBACK_DISCOUNTS
    y = n[0] / (n[0] + 2 * n[1])
    found = tuple(float(k - (k + 1) * y * n[k] / n[k - 1]) for k in (1, 2, 3))
    if not all(0 < d <= k for k, d in enumerate(found, 1)):
        return FALLBACK_DISCOUNTS
    return found[0], found[1], found[2]


@dataclass(frozen=True)
class Interpolated:
    """One order of a Kneser-Ney model. H = distinct histories (n-grams of the order below; one, the empty history, for order 1).

    keys: uint64 [K] as in `Level`. discounted: float64 [K], max(count - discount, 0) / total of the history. rest: float64 [H], the
    share of probability left to the order below; 1 where the history was never continued.
    """

    keys: Array
    discounted: Array
    rest: Array
    discounts: tuple[float, float, float]


class KneserNey:
    """p(w | h) = max(c(h w) - D(c(h w)), 0) / sum c(h .) + rest(h) p(w | h without its first token); below order 1 it is uniform."""

    smoothing = KNESER_NEY

    def __init__(self, levels: Sequence[Level], vocab_size: int) -> None:
        """Fit a model of the order of the last level; lower orders count the distinct tokens before an n-gram, not its occurrences."""
        self.vocab_size = vocab_size
        self.orders: list[Interpolated] = []
        histories = 1
        for length, level in enumerate(levels, 1):
            highest = length == len(levels)
            counts = level.counts if highest or level.extensions is None else level.extensions
            self.orders.append(_interpolate(level.keys, counts, histories, vocab_size))
            histories = len(level.keys)

    @property
    def order(self) -> int:
        return len(self.orders)

    def log_probability(self, stream: Stream) -> Array:
        """Natural logarithm of p(token | up to order - 1 tokens of its document before it): float64 [M]; 0 at position 0."""
        ids, depth = stream.ids.astype(np.int64), stream.depth
        first = self.orders[0]
        probability = first.discounted[ids] + first.rest[0] / self.vocab_size
        number = ids  # of the n-gram that ends at each position, -1 where training had none
        for length, order in enumerate(self.orders[1:], 2):
            history = np.full(len(ids), -1, dtype=np.int64)
            history[1:] = number[:-1]
            history[depth < length - 1] = -1
            known = np.flatnonzero(history >= 0)
            wanted = history[known].astype(np.uint64) * np.uint64(self.vocab_size) + ids[known].astype(np.uint64)
            place = np.searchsorted(order.keys, wanted)
            place[place == len(order.keys)] = 0
            seen = order.keys[place] == wanted if len(order.keys) else np.zeros(len(known), dtype=bool)
            probability[known] *= order.rest[history[known]]
            probability[known[seen]] += order.discounted[place[seen]]
            number = np.full(len(ids), -1, dtype=np.int64)
            number[known[seen]] = place[seen]
        probability[0] = 1.0
        return np.log(probability)


def _interpolate(keys: Array, counts: Array, histories: int, vocab_size: int) -> Interpolated:
    history = (keys // np.uint64(vocab_size)).astype(np.int64)
    total = np.bincount(history, weights=counts, minlength=histories)
    found = discounts(counts)
    taken = np.array([0.0, *found])[np.minimum(counts, 3)]
    left = np.bincount(history, weights=taken, minlength=histories)
    rest = np.divide(left, total, out=np.ones(histories), where=total > 0)
    discounted = np.where(counts > 0, (counts - taken) / np.where(total > 0, total, 1.0)[history], 0.0)
    return Interpolated(keys, discounted, rest, found)


class Unigram:
    """p(w) = (count of w + 1) / (all tokens + vocabulary)."""

    smoothing = ADD_ONE
    order = 1

    def __init__(self, counts: Array, vocab_size: int) -> None:
        self.log = np.log((counts + 1.0) / (counts.sum() + vocab_size))

    def log_probability(self, stream: Stream) -> Array:
        """Natural logarithm of each token's probability: float64 [M]; 0 at position 0."""
        found = self.log[stream.ids]
        found[0] = 0.0
        return found


def score_baselines(tokens: Path, config: EvaluateConfig, out: Path) -> dict[str, Any]:
    """Fit unigram, bigram and 5-gram on all training tokens of a store and score them on the tokens that checkpoints are scored on.

    Args:
        tokens: a committed token store with its tokenizer.json.
        out: the JSON file to publish.

    Returns:
        what the file holds: "baselines" [{"name", "order", "smoothing", "bits_per_byte", "nats_per_token", "metrics": rows as in a
        suite's result}], and what was scored.

    Raises:
        ValueError: no training tokens, or no validation document with two tokens.
    """
    started = time.monotonic()
    store = TokenStore.open(tokens)
    if not any(store.num_tokens(source, "train") for source in store.sources):
        raise ValueError(f"{tokens}: no training tokens, so there is nothing to fit a baseline on.")
    excerpts = choose(store, Tokenizer.from_file(str(storage.local(tokens / "tokenizer.json"))), config.max_tokens)
    if not len(excerpts):
        raise ValueError(f"{tokens}: no validation document of two tokens or more; raise split.validation.")
    train = [store.tokens(source, "train", 0, store.num_tokens(source, "train")).astype(np.uint32) for source in store.sources]
    levels = count(Stream.of(train, store.eos), store.vocab_size, ORDER)
    models: dict[str, Unigram | KneserNey] = {
        "unigram": Unigram(levels[0].counts, store.vocab_size),
        "bigram": KneserNey(levels[:2], store.vocab_size),
        f"{ORDER}-gram": KneserNey(levels, store.vocab_size),
    }
    pieces = [excerpts.ids(store, row) for row in range(len(excerpts))]
    baselines = []
    for name, model in models.items():
        nats = np.array([-model.log_probability(Stream.of([piece], store.eos))[2:].sum() for piece in pieces])
        nothing = np.zeros(len(nats), dtype=np.int64)
        scores = DocumentScores(excerpts.source, excerpts.doc, excerpts.tokens - 1, excerpts.num_bytes, nats, nothing)
        metrics = [row for row in rows(scores) if row["metric"] != "next_token_accuracy"]
        baselines.append(
            {
                "name": name,
                "order": model.order,
                "smoothing": model.smoothing,
                "discounts": [list(order.discounts) for order in model.orders] if isinstance(model, KneserNey) else None,
                "bits_per_byte": metrics[0]["value"],
                "nats_per_token": float(nats.sum() / scores.tokens.sum()),
                "metrics": metrics,
            }
        )
    found = {
        "baselines": baselines,
        "tokens_fingerprint": store.fingerprint,
        "max_tokens": config.max_tokens,
        "training_tokens": int(sum(len(piece) for piece in train)),
        "distinct_ngrams": [len(level.keys) for level in levels],
        "scored_tokens": int((excerpts.tokens - 1).sum()),
        "bytes": int(excerpts.num_bytes.sum()),
        "n_documents": len(excerpts),
    }
    return publish(out, found, DEFINITION, started)
