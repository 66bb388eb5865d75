"""RunConfig: the shape of the YAML, and the checks that cross fields."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from headrace import storage
from headrace.config import Config, ConfigError, dump_yaml, expand_environment, load_yaml, override, parse_yaml, validate
from headrace.credentials import refuse_credentials
from headrace.decontaminate.presets import Decontaminate
from headrace.dedup.levels import Dedup
from headrace.evaluate.config import EvaluateConfig
from headrace.ingest.budget import ErrorBudget
from headrace.ingest.source import Source
from headrace.model import DecoderConfig, ModelConfig, ModelSpec
from headrace.objectives import CausalLM, ObjectiveConfig
from headrace.observe.copies import ReportConfig
from headrace.split import Split
from headrace.stage import Engine
from headrace.tokens.tokenizer import Tokens
from headrace.train.auto import legal_layouts
from headrace.train.config import TrainConfig
from headrace.train.elastic import settle
from headrace.train.room import Room, gpus, room_of_machine
from headrace.train.rules import breaches, check
from headrace.train.start import check_start


class Cluster(Config):
    """Where the run's jobs go."""

    address: str | None = None  # http://HOST:PORT of a cluster's dashboard; null starts a local one for this run
    cpus: Annotated[int, Field(ge=1)] | None = None  # cores that a local cluster may fill; null = those of this machine
    data_engine: Engine = "ray"  # "local" runs the data stages in the data job's own process

    @property
    def cores(self) -> int:
        return self.cpus or os.cpu_count() or 1

    @property
    def places(self) -> int:
        """Workers that a local cluster has room for: one a GPU, or without any one a core."""
        return gpus()[0] or self.cores


class RunConfig(Config):
    """One run: from raw files to scores."""

    out: str  # the run's folder
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0  # of everything random: split, tokenizer sample, weights, order of samples
    unit_bytes: Annotated[int, Field(ge=1 << 16)] | None = None  # decompressed input of a work unit; null = `unit_size` (ingest/listing.py)
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    errors: ErrorBudget = ErrorBudget()
    dedup: Dedup = Dedup()
    decontaminate: Decontaminate | None = None  # null: no evaluation set is looked for in the text
    split: Split = Split()
    tokens: Tokens = Tokens()
    model: ModelSpec = DecoderConfig()
    objective: ObjectiveConfig = CausalLM()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def names_are_unique(self) -> RunConfig:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sources: {', '.join(twice)} is the name of more than one source; a name tells their documents apart")
        if "all" in names:
            raise ValueError("sources: 'all' is what the scores call all sources together; name the source otherwise")
        return self

    @property
    def folder(self) -> Path:
        return storage.folder(self.out)

    @property
    def workers(self) -> int:
        """Training workers to start: what `train.num_workers` or the layout says, else as many as this machine has a use for."""
        train = self.train
        if isinstance(train.num_workers, int):
            return train.num_workers
        if isinstance(train.num_workers, tuple):
            lowest, highest = train.num_workers
            return highest if self.cluster.address else max(lowest, min(highest, self.cluster.places))
        if train.layout != "auto" and train.layout.data is not None:
            return train.layout.data * train.layout.replica
        needed = 1 if train.layout == "auto" else train.layout.replica
        return max((world for world in range(1, self.cluster.places + 1) if self._can_use(world)), default=needed)

    def _can_use(self, world: int) -> bool:
        if self.train.layout == "auto":
            layouts = legal_layouts(self.train, self.sized_model, world, self.cluster.places)
            # A GPU that no batch is left for may share matrices; of a CPU's cores the product itself makes better use.
            return any(gpus()[0] or layout.replica == 1 for layout in layouts)
        return not breaches(self.train, self.sized_model, world)

    @property
    def sized_model(self) -> ModelConfig:
        """The model with its vocabulary as far as it is known before the data exists."""
        return self.model.sized(self.tokens.vocab_size, self.tokens.sequence_length)

    @property
    def room(self) -> Room | None:
        """What a training worker has; None where only the cluster knows."""
        return None if self.cluster.address else room_of_machine(self.workers)


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a YAML file and `key.sub=value` overrides describe.

    Raises:
        ConfigError: every mistake, a line each.
    """
    written = override(load_yaml(path), overrides)
    values = expand_environment(written)
    refuse_credentials(written, values, str(path))
    config = with_start(validate(RunConfig, values, str(path)), str(path))
    check_run(config, str(path))
    return config


def with_start(config: RunConfig, source: str) -> RunConfig:
    """The same with a model as `train.start` has it, in all that the YAML leaves unsaid.

    Raises:
        ConfigError: every reason why the run cannot start from there, a line each.
    """
    if config.train.start is None:
        return config
    try:
        return config.model_copy(update={"model": check_start(config.train.start, config.folder, config.model, config.tokens)})
    except ConfigError as error:
        raise ConfigError("\n".join(f"{source}: {mistake}" for mistake in str(error).splitlines())) from None


def check_run(config: RunConfig, source: str) -> None:
    """Checks that cross rooms: the objective against the architecture; the layout against model, batch and workers.

    Raises:
        ConfigError: every mistake, a line each: what cannot be run together, with the nearest layout that can.
    """
    mistakes = [mistake for find in (_objective_mistakes, _worker_mistakes, _layout_mistakes, _report_mistakes) for mistake in find(config)]
    if mistakes:
        raise ConfigError("\n".join(f"{source}: {mistake}" for mistake in mistakes))


def _objective_mistakes(config: RunConfig) -> Iterator[str]:
    fits = {"decoder": "causal", "encoder_decoder": "continuation"}[config.model.architecture]
    if config.objective.name != fits:
        yield f"objective.name = {config.objective.name} is nothing for model.architecture = {config.model.architecture}; set {fits}."


def _worker_mistakes(config: RunConfig) -> Iterator[str]:
    workers, layout = config.train.num_workers, config.train.layout
    data = None if layout == "auto" else layout.data
    if config.cluster.address and workers is None and data is None:
        yield "train.num_workers or train.layout.data: required with cluster.address: this machine cannot know how many workers fit there."
    if isinstance(workers, tuple) and data is not None:
        yield f"train.layout.data = {data} with train.num_workers = {list(workers)}: a range decides the data-parallel size; leave it out."


def _layout_mistakes(config: RunConfig) -> Iterator[str]:
    train, model = config.train, config.sized_model
    if config.cluster.address and train.layout == "auto":
        return  # the workers choose by their memory when they start
    try:
        if train.layout == "auto":
            settle(train, model, config.workers, room_of_machine(config.workers))
        elif isinstance(train.num_workers, tuple):
            for world in train.num_workers:  # the fewest must do, too
                settle(train, model, world, Room(0, world, False))  # a layout that is given looks at no memory
        else:
            check(train, model, config.workers)
    except ConfigError as error:
        yield from str(error).splitlines()


def _report_mistakes(config: RunConfig) -> Iterator[str]:
    for extra in config.report.missing():
        yield f"report.{extra}: its packages are not installed; pip install 'headrace[{extra}]', or leave it out."
    if config.report.tensorboard and storage.is_remote(config.folder):
        yield "report.tensorboard: event files go to a disk, and the run lies on a store; use `headrace report RUN --tensorboard FOLDER`."


def resolved_yaml(config: RunConfig) -> str:
    """The whole configuration with every default written out, as RUN/config.yaml holds it."""
    return dump_yaml(as_json(config))


def as_json(config: Config) -> dict[str, Any]:
    """Plain values under the YAML's own names."""
    return config.model_dump(mode="json", by_alias=True)


def open_run(folder: Path) -> RunConfig:
    """The configuration that a run's folder was made with.

    Raises:
        ConfigError: the folder holds no run.
    """
    place = storage.name(folder / "config.yaml")
    try:
        content = storage.read_bytes(folder / "config.yaml")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{storage.name(folder)}: no run there (config.yaml is missing); give the folder that `out` named.") from None
    return validate(RunConfig, parse_yaml(content, place), place)
