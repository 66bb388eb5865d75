"""How ranks share a model and a batch: world = pipeline x data x tensor, and the ZeRO stage of the data-parallel group."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from headrace.config import Config, ConfigError


class Layout(Config):
    """Sizes of the parallel groups."""

    data: PositiveInt | None = None  # replicas of the model; null = as many as there are workers for
    tensor: PositiveInt = 1  # ranks that share each matrix
    pipeline: PositiveInt = 1  # stages that share the layers
    zero: Annotated[int, Field(ge=0, le=3)] = 1  # shards over the data ranks: 1 optimizer state, 2 + gradients, 3 + weights

    @model_validator(mode="after")
    def _runnable(self) -> Layout:
        for name in ("tensor", "pipeline"):
            if (size := getattr(self, name)) != 1:
                raise ValueError(
                    f"{name} = {size}, but this version splits a run over data-parallel ranks only; "
                    f"set train.layout.{name}=1, and shard a large model with train.layout.zero=3"
                )
        return self

    def data_size(self, world: int) -> int:
        """Data-parallel ranks of a world of that many workers.

        Raises:
            ConfigError: the layout asks for another number of workers.
        """
        if self.data is not None and self.data != world:
            raise ConfigError(f"train.layout.data = {self.data}, but {world} workers were started; set train.layout.data={world} or null.")
        return world
