"""An optimizer step's sequences, read from the token store by memory map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headrace.batches.order import Order


class Sequences(Protocol):
    """What a loader asks of a token store."""

    @property
    def sources(self) -> Sequence[str]: ...

    def num_sequences(self, source: str, part: str) -> int: ...

    def sequence(self, source: str, part: str, index: int) -> npt.NDArray[np.int64]: ...


@dataclass(frozen=True)
class Loader:
    """Batch b holds samples b x B to (b + 1) x B - 1, B the global batch; data-parallel rank r of D reads every D-th from the r-th.

    So the sequences of a batch, taken over all ranks, are the same for every D, and no rank keeps a position of its own. Optimizer
    step s takes batch s, unless data was left out before it.
    """

    store: Sequences
    order: Order
    global_batch: int  # sequences an optimizer step, over all ranks
    micro_batch: int  # sequences a rank and forward pass
    data_rank: int
    data_size: int

    def __post_init__(self) -> None:
        if self.global_batch % (self.micro_batch * self.data_size):
            raise ValueError(
                f"global batch {self.global_batch} is not a multiple of micro batch {self.micro_batch} "
                f"x data-parallel size {self.data_size}."
            )

    def numbers(self, batch: int) -> npt.NDArray[np.int64]:
        """Which samples of the run this rank reads of batch 0, 1, ...: int64 [global_batch / data_size]."""
        start = batch * self.global_batch
        return np.arange(start + self.data_rank, start + self.global_batch, self.data_size, dtype=np.int64)

    def read(self, batch: int) -> npt.NDArray[np.int64]:
        """This rank's sequences of batch 0, 1, ...: int64 [global_batch / data_size, L + 1]."""
        start = batch * self.global_batch
        source, index = self.order.samples(start, start + self.global_batch)
        mine = slice(self.data_rank, None, self.data_size)
        names = self.order.sources
        return np.stack([self.store.sequence(names[s], "train", int(i)) for s, i in zip(source[mine], index[mine])])

    def micro_batches(self, batch: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """The same in passes: sequences int64 [micro_batch, L + 1], and which samples of the run they are, int64 [micro_batch]."""
        sequences, numbers = self.read(batch), self.numbers(batch)
        for first in range(0, len(sequences), self.micro_batch):
            yield sequences[first : first + self.micro_batch], numbers[first : first + self.micro_batch]
