"""RunConfig: the shape of the YAML, and the checks that cross fields."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, model_validator

from headrace.config import Config, ConfigError, expand_environment, load_yaml, override, validate
from headrace.decontaminate.presets import Decontaminate
from headrace.dedup.levels import Dedup
from headrace.evaluate.suite import EvaluateConfig
from headrace.ingest.budget import ErrorBudget
from headrace.ingest.source import Source
from headrace.model import DecoderConfig
from headrace.split import Split
from headrace.stage import Engine
from headrace.tokens.tokenizer import Tokens
from headrace.train.config import TrainConfig


class Cluster(Config):
    """Where the run's jobs go."""

    address: str | None = None  # http://HOST:PORT of a cluster's dashboard; null starts a local one for this run
    cpus: Annotated[int, Field(ge=1)] | None = None  # cores that a local cluster may fill; null = those of this machine
    data_engine: Engine = "ray"  # "local" runs the data stages in the data job's own process

    @property
    def cores(self) -> int:
        return self.cpus or os.cpu_count() or 1


class RunConfig(Config):
    """One run: from raw files to scores."""

    out: str  # the run's folder
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0  # of everything random: split, tokenizer sample, weights, order of samples
    unit_bytes: Annotated[int, Field(ge=1 << 16)] | None = None  # decompressed input of a work unit; null = total/16, in [1, 128] MB
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    errors: ErrorBudget = ErrorBudget()
    dedup: Dedup = Dedup()
    decontaminate: Decontaminate | None = None  # null: no evaluation set is looked for in the text
    split: Split = Split()
    tokens: Tokens = Tokens()
    model: DecoderConfig = DecoderConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
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
        return Path(self.out).expanduser().absolute()

    @property
    def workers(self) -> int:
        """Training workers: `train.layout.data`, or as many of this machine's GPUs, else cores, as the global batch can be shared among."""
        if self.train.layout.data is not None:
            return self.train.layout.data
        most = len(list(Path("/dev").glob("nvidia[0-9]*"))) or self.cluster.cores
        batch = self.train.batch
        return max((n for n in range(1, most + 1) if batch.global_batch % (batch.micro_batch * n) == 0), default=1)


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a YAML file and `key.sub=value` overrides describe.

    Raises:
        ConfigError: every mistake, a line each.
    """
    values = expand_environment(override(load_yaml(path), overrides))
    config = validate(RunConfig, values, str(path))
    check_run(config, str(path))
    return config


def check_run(config: RunConfig, source: str) -> None:
    """Checks that cross rooms: the batch against the number of workers, which may follow from the cluster's cores.

    Raises:
        ConfigError: the global batch cannot be cut that way, with the nearest that can; or nobody knows how many workers there are.
    """
    if config.cluster.address and config.train.layout.data is None:
        raise ConfigError(
            f"{source}: train.layout.data: required with cluster.address: this machine cannot know how many workers fit there"
        )
    try:
        config.train.accumulation_steps(config.workers)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def resolved_yaml(config: RunConfig) -> str:
    """The whole configuration with every default written out, as RUN/config.yaml holds it."""
    return yaml.safe_dump(as_json(config), sort_keys=False, allow_unicode=True)


def as_json(config: Config) -> dict[str, Any]:
    """Plain values under the YAML's own names."""
    return config.model_dump(mode="json", by_alias=True)


def open_run(folder: Path) -> RunConfig:
    """The configuration that a run's folder was made with.

    Raises:
        ConfigError: the folder holds no run.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder}: no run there (config.yaml is missing); give the folder that `out` named.")
    return validate(RunConfig, load_yaml(path), str(path))
