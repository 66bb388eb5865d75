"""Sample k of a run as a pure function of (seed, sources, weights, k): nothing to store, nothing to lose in a crash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from headrace.batches.permutation import Indices, key, permuted, shuffled
from headrace.config import ConfigError

BLOCK = 1024  # samples; within each the sources stand in their shares, in shuffled order
PERIOD = 1024  # blocks after which the quotas repeat; must be a power of two
SEATS = BLOCK * PERIOD


@dataclass(frozen=True)
class Order:
    """The sequence of samples that a run consumes.

    A source's share is its weight times its number of sequences: with equal weights every source is read equally often,
    weight 2 reads a source twice as often as weight 1. Each block of 1,024 samples holds a source's share to within one
    sample, and each 1,024 blocks hold it exactly (rounded to one of 2^20 seats). A source is read in epochs: every sequence
    once, in an order of its own each time.
    """

    seed: int
    num_sequences: Mapping[str, int]  # of each source; sources are ordered by name
    weights: Mapping[str, float]  # of each source; 0 leaves it out

    def __post_init__(self) -> None:
        for name in sorted(set(self.num_sequences) ^ set(self.weights)):
            known = ", ".join(sorted(self.num_sequences))
            raise ConfigError(f"mixture.{name}: weights and sources differ in this name; the token store holds {known}.")
        for name, weight in self.weights.items():
            if not (weight >= 0 and np.isfinite(weight)):
                raise ConfigError(f"mixture.{name} = {weight}: a weight is a number of at least 0.")
        if not any(self.num_sequences[name] and weight for name, weight in self.weights.items()):
            raise ConfigError(
                "There is no training sequence in any source of positive weight: the data is shorter than one sequence; "
                "lower tokens.sequence_length or add data."
            )

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names that the numbers in `samples` stand for."""
        return tuple(sorted(self.num_sequences))

    @cached_property
    def _quotas(self) -> Indices:
        """Samples of each source in each block of a period: int64 [PERIOD, sources], rows sum to BLOCK, columns to the seats.

        Block b gets the whole numbers that a comb of spacing PERIOD, set off by u(b), finds below the cumulative seats; u
        runs through 0..PERIOD-1 in bit-reversed order, so that a rare source's samples lie evenly apart.
        """
        below = np.concatenate(([0], np.cumsum(self._seats)))
        width = PERIOD.bit_length() - 1
        offsets = np.array([int(f"{block:0{width}b}"[::-1], 2) for block in range(PERIOD)], dtype=np.int64)
        return np.diff((below[None, :] + offsets[:, None]) // PERIOD, axis=1)

    @cached_property
    def _seats(self) -> Indices:
        """Seats of each source among SEATS, by largest remainder; a source of positive share has at least one."""
        share = np.array([self.weights[name] * self.num_sequences[name] for name in self.sources], dtype=np.float64)
        exact = share / share.sum() * SEATS
        seats = np.maximum(np.floor(exact), share > 0).astype(np.int64)
        by_remainder = np.argsort(seats - exact, kind="stable")
        short = SEATS - int(seats.sum())
        if short >= 0:
            seats[by_remainder[:short]] += 1
        else:  # seats lent to sources of less than one: the largest source pays
            seats[int(np.argmax(seats))] += short
        return seats

    @cached_property
    def _drawn(self) -> Indices:
        """Samples of each source before each block of a period: int64 [PERIOD + 1, sources]."""
        return np.concatenate((np.zeros((1, len(self.sources)), np.int64), np.cumsum(self._quotas, axis=0)))

    def sample(self, k: int) -> tuple[str, int]:
        """Source and index of the k-th sequence that the run consumes."""
        source, index = self.samples(k, k + 1)
        return self.sources[int(source[0])], int(index[0])

    def samples(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Samples start..stop-1: numbers of the sources (see `sources`) and indices within them, int64 [stop - start] each."""
        parts = [self._recent(block) for block in range(start // BLOCK, -(-stop // BLOCK))]
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        first = start // BLOCK * BLOCK
        source, index = (np.concatenate(column)[start - first : stop - first] for column in zip(*parts))
        return source, index

    @cached_property
    def _blocks(self) -> dict[int, tuple[Indices, Indices]]:
        """The two blocks asked for last: a step takes a few of a block's samples, and the next step the next few."""
        return {}

    def _recent(self, block: int) -> tuple[Indices, Indices]:
        """Source and index of each sample of a block."""
        if block not in self._blocks:
            if len(self._blocks) > 1:
                del self._blocks[next(iter(self._blocks))]
            source, draw = self._block(block)
            index = np.empty_like(draw)
            for number in np.unique(source):
                rows = np.flatnonzero(source == number)
                index[rows] = self._read(int(number), draw[rows])
            self._blocks[block] = source, index
        return self._blocks[block]

    def _block(self, block: int) -> tuple[Indices, Indices]:
        """Source, and how many samples of that source came before, of each sample of a block."""
        period, place = divmod(block, PERIOD)
        quota = self._quotas[place]
        source = np.repeat(np.arange(len(quota)), quota)[shuffled(BLOCK, key(self.seed, "block", block))]
        by_source = np.argsort(source, kind="stable")
        draw = np.empty_like(source)
        before = period * self._seats + self._drawn[place]
        draw[by_source] = np.arange(BLOCK) + np.repeat(before - (np.cumsum(quota) - quota), quota)
        return source, draw

    def _read(self, number: int, draw: Indices) -> Indices:
        """Sequence of a source that its draws 0, 1, 2, ... give: one permutation an epoch."""
        name = self.sources[number]
        count = self.num_sequences[name]
        epoch, position = np.divmod(draw, count)
        index = np.empty_like(draw)
        for turn in np.unique(epoch):
            rows = np.flatnonzero(epoch == turn)
            index[rows] = permuted(position[rows], count, key(self.seed, "epoch", name, int(turn)))
        return index

    def epochs(self, stop: int) -> dict[str, float]:
        """How often each source has been read once samples 0..stop-1 are consumed."""
        period, place = divmod(stop // BLOCK, PERIOD)
        drawn = period * self._seats + self._drawn[place]
        if stop % BLOCK:
            source, _ = self.samples(stop // BLOCK * BLOCK, stop)
            drawn = drawn + np.bincount(source, minlength=len(self.sources))
        return {
            name: float(drawn[i]) / self.num_sequences[name] if self.num_sequences[name] else 0.0 for i, name in enumerate(self.sources)
        }
