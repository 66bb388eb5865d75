"""The `train` part of a run's configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from headrace.config import Config, ConfigError
from headrace.train.layout import Layout
from headrace.train.schedule import Cosine, Schedule


class Batch(Config):
    """How many sequences one optimizer step sees."""

    # `global` is a word of Python's grammar, so the YAML's names are aliases; both spellings are read.
    model_config = ConfigDict(populate_by_name=True)

    global_batch: PositiveInt = Field(default=32, alias="global")  # sequences per optimizer step, over all ranks
    micro_batch: PositiveInt = Field(default=8, alias="micro")  # sequences per rank per forward pass

    def accumulation_steps(self, data_size: int) -> int:
        """Forward passes per rank per optimizer step.

        Raises:
            ConfigError: the global batch cannot be cut that way.
        """
        per_pass = self.micro_batch * data_size
        if self.global_batch % per_pass:
            nearest = max(1, round(self.global_batch / per_pass)) * per_pass
            raise ConfigError(
                f"train.batch.global = {self.global_batch} is not a multiple of micro ({self.micro_batch}) "
                f"x data-parallel size ({data_size}) = {per_pass}; the nearest that fits is {nearest}."
            )
        return self.global_batch // per_pass


class Optimizer(Config):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); defaults of Touvron et al. 2023 (arXiv:2302.13971, section 2.3)."""

    lr: PositiveFloat = 1e-3  # peak learning rate
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.1  # on matrices; norms are not decayed
    clip: PositiveFloat | None = 1.0  # largest global gradient norm; null = never clipped


class Checkpoint(Config):
    """When the state of training is written, and how much of it is kept; the last step is always written and kept."""

    every: PositiveInt = 100  # optimizer steps
    keep: PositiveInt = 5  # newest checkpoints; older ones go once nothing reads them or owes them a score
    initial: bool = True  # also before the first step, so that evaluation has a starting point


class TrainConfig(Config):
    """Everything about training but the model, the objective, the data and the seed."""

    steps: PositiveInt = 300  # optimizer steps
    batch: Batch = Batch()
    layout: Layout = Layout()
    precision: Literal["fp32", "bf16"] = "fp32"  # of weights and activations in a pass; masters and optimizer state are fp32
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Cosine()
    checkpoint: Checkpoint = Checkpoint()
    threads: PositiveInt = 1  # of a worker on a CPU
    max_failures: NonNegativeInt = 3  # restarts of the group of workers before the run fails

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        self.schedule.check(self.steps)
        if self.layout.data is not None:
            self.accumulation_steps(self.layout.data)
        return self

    def accumulation_steps(self, data_size: int) -> int:
        """Forward passes per rank per optimizer step; raises ConfigError where the batch does not divide."""
        return self.batch.accumulation_steps(data_size)
