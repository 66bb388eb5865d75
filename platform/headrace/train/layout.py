"""How ranks share a model and a batch: world = pipeline x data x tensor, and the ZeRO stage of the data-parallel group."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from headrace.config import Config, ConfigError


class Layout(Config):
    """Sizes of the parallel groups."""

    data: PositiveInt | None = None  # replicas of the model; null = as many as there are workers for
    tensor: PositiveInt = 1  # ranks that share each matrix
    pipeline: PositiveInt = 1  # stages that share the layers
    zero: Annotated[int, Field(ge=0, le=3)] = 1  # shards over the data ranks: 1 optimizer state, 2 + gradients, 3 + weights
    sequence: bool = False  # the tensor ranks share the sequence between their matrices, too (Korthikanti et al. 2022, arXiv:2205.05198)
    offload: bool = False  # optimizer state in the memory of the host

    @property
    def replica(self) -> int:
        """Ranks that hold one model together."""
        return self.tensor * self.pipeline

    def data_size(self, world: int) -> int:
        """Data-parallel ranks of a world of that many workers.

        Raises:
            ConfigError: the layout asks for another number of workers.
        """
        if world % self.replica or (self.data is not None and self.data * self.replica != world):
            wanted = self.replica * (self.data or 1)
            raise ConfigError(
                f"train.layout: data {self.data or 'any'} x tensor {self.tensor} x pipeline {self.pipeline} does not make {world} workers; "
                f"{wanted} {'are' if self.data else 'or a multiple are'} needed."
            )
        return world // self.replica

    def with_data(self, data: int) -> Layout:
        """The same with its data-parallel size settled."""
        return self.model_copy(update={"data": data})
