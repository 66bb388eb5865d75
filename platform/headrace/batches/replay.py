"""A share of a run's samples drawn from the data of an earlier run: what a model learned there is forgotten less.

Ibrahim et al. 2024 (arXiv:2403.08763) replay about 5 % where old and new text are alike and 25 % where they are of different languages,
and match a model that is trained on both from the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.batches.loader import Sequences
from headrace.config import ConfigError
from headrace.tokens.store import TokenStore

PREFIX = "replay/"  # no source of a run has a slash in its name


@dataclass(frozen=True)
class Replay:
    """Data of an earlier run, and how much of it a new run reads.

    The share is that of the samples of each block of the order, to within one sample; the old sources stand to each other as the
    earlier run's own weights have them. What that run itself replayed is not replayed again.
    """

    store: TokenStore
    weights: Mapping[str, float]  # of each source of the store, as the earlier run read them
    share: float  # of the new run's samples, 0 < share < 1


@dataclass(frozen=True)
class Union:
    """A store and behind it, its sources' names prefixed with `replay/`, one of an earlier run, cut into sequences of the new length."""

    new: Sequences
    old: TokenStore
    sequence_length: int

    @property
    def sources(self) -> Sequence[str]:
        return sorted([*self.new.sources, *(PREFIX + name for name in self.old.sources)])

    def num_sequences(self, source: str, part: str) -> int:
        if not source.startswith(PREFIX):
            return self.new.num_sequences(source, part)
        return max(0, (self.old.num_tokens(source.removeprefix(PREFIX), part) - 1) // self.sequence_length)

    def sequence(self, source: str, part: str, index: int) -> npt.NDArray[np.int64]:
        """int64 [sequence_length + 1]."""
        if not source.startswith(PREFIX):
            return self.new.sequence(source, part, index)
        start = index * self.sequence_length
        return self.old.tokens(source.removeprefix(PREFIX), part, start, start + self.sequence_length + 1)


def with_replay(store: TokenStore, weights: Mapping[str, float], replay: Replay) -> tuple[Union, dict[str, float]]:
    """Both runs' training sequences as one store, and the weights that give the old ones their share of an `Order` over it.

    Args:
        weights: of each source of `store`.

    Raises:
        ConfigError: the stores' tokens are not of one vocabulary; or the old one has no training sequence of this length.
    """
    if (store.vocab_size, store.eos) != (replay.store.vocab_size, replay.store.eos):
        raise ConfigError(
            f"train.start.replay = {replay.share}: {replay.store.folder} has {replay.store.vocab_size} token ids and ends documents with "
            f"{replay.store.eos}, {store.folder} has {store.vocab_size} and {store.eos}; make the new data with the old run's tokenizer."
        )
    union = Union(store, replay.store, store.sequence_length)
    scaled = {PREFIX + name: replay.weights[name] for name in replay.store.sources}
    read = sum(weight * union.num_sequences(name, "train") for name, weight in weights.items())
    replayed = sum(weight * union.num_sequences(name, "train") for name, weight in scaled.items())
    if not replayed:
        raise ConfigError(
            f"train.start.replay = {replay.share}: {replay.store.folder} holds no training sequence of {store.sequence_length} tokens in a "
            "source that its run read; lower tokens.sequence_length, or set train.start.replay=0."
        )
    # A source's part of an order is weight x sequences: those of the old sources must add up to share / (1 - share) of the new ones'.
    factor = replay.share / (1.0 - replay.share) * read / replayed
    return union, {**weights, **{name: weight * factor for name, weight in scaled.items()}}
