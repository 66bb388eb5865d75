"""The `train` part of a run's configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from headrace.config import Config, ConfigError
from headrace.train.layout import Layout
from headrace.train.optimizer import Optimizer
from headrace.train.schedule import Cosine, Schedule

Precision = Literal["fp32", "bf16", "fp16"]
Recompute = Literal["none", "block", "selective"]


class Batch(Config):
    """How many sequences one optimizer step sees."""

    # `global` is a word of Python's grammar, so the YAML's names are aliases; both spellings are read.
    model_config = ConfigDict(populate_by_name=True)

    global_batch: PositiveInt = Field(default=32, alias="global")  # sequences per optimizer step, over all ranks
    micro_batch: PositiveInt = Field(default=8, alias="micro")  # sequences per data-parallel rank per forward pass

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


class Checkpoint(Config):
    """When the state of training is written, and how much of it is kept; the last step is always written and kept."""

    # Optimizer steps; "auto" balances the measured cost of a checkpoint against the work that a failure would lose (Young, Daly).
    every: PositiveInt | Literal["auto"] = 100
    mtbf_hours: PositiveFloat = 24.0  # expected hours between two failures of the whole job, for `every: auto`
    keep: PositiveInt = 5  # newest checkpoints; older ones go once nothing reads them or owes them a score
    milestones: PositiveInt | None = None  # checkpoints of steps that are multiples of this stay for ever
    best: NonNegativeInt = 0  # so many of the lowest validation loss stay
    initial: bool = True  # also before the first step, so that evaluation has a starting point
    asynchronous: bool = True  # written behind the next steps, from a copy in memory


class Spikes(Config):
    """What happens to a step whose loss or gradient is out of the ordinary.

    A step is skipped, its weights left as they are, when its loss or gradient norm is no finite number or lies more than `sigma`
    standard deviations above the mean of the last `window` steps (OLMo 2, arXiv:2501.00656, section 3.3.3). After `patience` skipped
    steps in a row training goes back to the last checkpoint before them and leaves out the data between (PaLM, arXiv:2204.02311, section
    5.1), at most `rewinds` times in a run.
    """

    sigma: PositiveFloat | None = 6.0  # null: only what is not finite is skipped
    window: Annotated[int, Field(ge=2)] = 128  # optimizer steps; half of them must have been taken before anything is a spike
    patience: PositiveInt = 8  # skipped steps in a row
    rewinds: NonNegativeInt = 2


class Start(Config):
    """Where a new run's weights come from, if not from its seed: continued pretraining."""

    # RUN@STEP (a folder of ours and a step, or RUN for its newest checkpoint), or a folder in the Hugging Face format.
    checkpoint: str
    # Share of the samples that is drawn from the data of the run that the weights come from; what was learned there is forgotten less
    # (Ibrahim et al. 2024, arXiv:2403.08763).
    replay: Annotated[float, Field(ge=0, lt=1)] = 0.0


class TrainConfig(Config):
    """Everything about training but the model, the objective, the data and the seed."""

    steps: PositiveInt = 300  # optimizer steps
    batch: Batch = Batch()
    # Workers (ranks). null: what the layout needs, or as many as the machine has. [min, max]: as many as there are; the global batch stays.
    num_workers: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    layout: Layout | Literal["auto"] = Layout()
    precision: Precision = "fp32"  # of weights and activations in a pass; masters, accumulated gradients and optimizer state are fp32
    activation_checkpointing: Recompute = "none"  # what is computed again in the backward pass rather than kept
    compile: bool = False  # each block by torch's compiler: fewer kernels, for a minute or so at every start
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Cosine()
    checkpoint: Checkpoint = Checkpoint()
    spikes: Spikes = Spikes()
    start: Start | None = None
    timeout_s: PositiveFloat = 600.0  # without a finished step, before a worker says where it hangs and ends
    threads: PositiveInt = 1  # of a worker on a CPU
    max_failures: NonNegativeInt = 3  # restarts of the group of workers before the run fails
    may_change: tuple[str, ...] = ()  # fields, such as train.optimizer.lr, that a resumed run may have changed

    @model_validator(mode="before")
    @classmethod
    def _start_by_name(cls, values: object) -> object:
        if isinstance(values, dict) and isinstance(values.get("start"), str):
            return {**values, "start": {"checkpoint": values["start"]}}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        self.schedule.check(self.steps)
        if isinstance(self.num_workers, tuple) and self.num_workers[0] > self.num_workers[1]:
            raise ValueError(f"num_workers = {list(self.num_workers)}: the first is the fewest, the second the most")
        if self.layout != "auto" and self.layout.data is not None:
            self.accumulation_steps(self.layout.data)
        return self

    def accumulation_steps(self, data_size: int) -> int:
        """Forward passes per rank per optimizer step; raises ConfigError where the batch does not divide."""
        return self.batch.accumulation_steps(data_size)
