"""Where a worker's weights come from: the run's newest whole checkpoint, else what `train.start` names, else the seed."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist

from headrace.checkpoint import Reader, newest_valid
from headrace.checkpoint.canonical import STEP
from headrace.checkpoint.retention import sweep
from headrace.config import ConfigError
from headrace.model import ModelConfig
from headrace.model.sequential import initial_weight, whole_shapes
from headrace.tokens.store import TokenStore
from headrace.train import spikes
from headrace.train.process import agreed, refusing_together
from headrace.train.spec import TrainSpec, check_unchanged
from headrace.train.state import Whole

log = logging.getLogger("headrace")


@dataclass
class Restored:
    """What a start begins with. A context: the files stay open until the engine has what it needs."""

    whole: Whole
    checkpoint: Path | None  # of this run, that it resumes from
    state: dict[str, Any]  # of that checkpoint, as its manifest holds it
    updates: float  # how often the optimizer has updated its tensors
    windows: tuple[spikes.Window, ...]  # data left out
    passed_over: list[str]  # what was wrong with newer checkpoints
    open_files: ExitStack = field(default_factory=ExitStack)

    @property
    def step(self) -> int:
        return int(self.state["step"]) if self.checkpoint else 0

    def __enter__(self) -> Restored:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.open_files.close()


def restore(spec: TrainSpec, store: TokenStore, model: ModelConfig) -> Restored:
    """What this start begins with, the same for every rank; collective.

    Raises:
        ConfigError: the run's checkpoint is of another configuration; or what `train.start` names does not fit model or data.
    """
    found = agreed(_newest(spec, store.fingerprint) if dist.get_rank() == 0 else None)
    if isinstance(found, ConfigError):
        raise found
    checkpoint, passed_over, windows = found
    files = ExitStack()
    if checkpoint is None:
        whole = _drawn(model, spec.seed)
        with refusing_together():
            if spec.start is not None:
                spec.start.check(store, model)
                whole = files.enter_context(spec.start.weights()).get
        return Restored(whole, None, {}, 0.0, windows, passed_over, files)
    reader = files.enter_context(Reader(checkpoint))
    updates = float(reader.get(STEP)) if STEP in reader.manifest["tensors"] else 0.0
    return Restored(reader.get, checkpoint, reader.manifest["state"], updates, windows, passed_over, files)


def _drawn(model: ModelConfig, seed: int) -> Whole:
    shapes = whole_shapes(model)
    return lambda name: initial_weight(model, seed, name, shapes[name].shape)


def _newest(spec: TrainSpec, fingerprint: str) -> ConfigError | tuple[Path | None, list[str], tuple[spikes.Window, ...]]:
    """The checkpoint to go on from and what was wrong with newer ones; a refusal is returned, for every rank to raise."""
    sweep(spec.checkpoints)
    checkpoint, passed_over = newest_valid(spec.checkpoints)
    for breach in passed_over:
        log.warning("checkpoint passed over: %s", breach)
    try:
        if checkpoint is not None:
            with Reader(checkpoint) as reader:
                check_unchanged(checkpoint, reader.manifest["config"], spec.fixed(fingerprint), spec.train.may_change)
        return checkpoint, passed_over, spikes.left_out(spec.run)
    except ConfigError as refusal:
        return refusal
