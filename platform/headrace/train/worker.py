"""The training worker: the same function under Ray Train, under torchrun and in a spawned process.

torchrun --nproc-per-node 2 -m headrace.train.worker SPEC.json
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from headrace import __version__, storage
from headrace.batches import Loader, Order
from headrace.checkpoint import Reader, newest_valid
from headrace.checkpoint.canonical import checkpoint_name
from headrace.checkpoint.retention import prune, sweep
from headrace.config import ConfigError
from headrace.model import ModelConfig, build_model, flops_per_token
from headrace.stage import peak_memory
from headrace.tokens.store import TokenStore
from headrace.train.engine import start_engine
from headrace.train.metrics import drop_after, peak_flops
from headrace.train.process import agreed, device, import_deepspeed, join, leave
from headrace.train.save import save
from headrace.train.schedule import learning_rate
from headrace.train.spec import TrainSpec, check_unchanged
from headrace.train.state import fill, reset_state, scatter
from headrace.train.step import StepResult, optimizer_step

log = logging.getLogger("headrace")

OnCheckpoint = Callable[[dict[str, Any]], None]


class TrainingDiverged(RuntimeError):
    """The loss or the gradient is no number any more."""


def train(values: dict[str, Any], on_checkpoint: OnCheckpoint | None = None) -> None:
    """Train to the last step, from the newest whole checkpoint of the run if there is one; called by every rank.

    Args:
        values: `TrainSpec.plain()`.
        on_checkpoint: called by every rank once a checkpoint is published, with its step and the last step's loss.

    Raises (each on every rank alike):
        ConfigError: the configuration does not fit the workers, the data, or the run's checkpoints.
        TrainingDiverged: a loss or gradient norm is infinite or no number.
        CheckpointFailed: a checkpoint could not be written.
    """
    clock = Clock()
    spec = TrainSpec.read(values)
    torch.set_num_threads(spec.train.threads)
    where = device()
    deepspeed = import_deepspeed(where)
    clock.lap("import")
    join(where)
    run = Run.start(spec, deepspeed, where, clock)
    run.to_the_end(on_checkpoint)
    run.engine.destroy()


@dataclass
class Clock:
    """Seconds of the parts of a start."""

    last: float = field(default_factory=time.monotonic)
    laps: dict[str, float] = field(default_factory=dict)

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self.last = round(now - self.last, 3), now


@dataclass
class Run:
    """A worker that has started: what it needs from step to step."""

    spec: TrainSpec
    store: TokenStore
    model: ModelConfig
    loader: Loader
    engine: Any
    where: torch.device
    data_size: int
    step: int  # optimizer steps taken
    versions: dict[str, str]
    loss: float | None = None  # of the last step taken

    @classmethod
    def start(cls, spec: TrainSpec, deepspeed: Any, where: torch.device, clock: Clock) -> Run:
        """Model, engine and loader, at the step of the newest whole checkpoint."""
        store = TokenStore.open(spec.tokens)
        data_size = spec.train.layout.data_size(dist.get_world_size())
        spec.train.accumulation_steps(data_size)
        loader = _loader(spec, store, data_size)
        config = spec.model.sized(store.vocab_size, store.sequence_length)
        checkpoint, skipped = agreed(_restorable(spec, store.fingerprint) if dist.get_rank() == 0 else None)
        if isinstance(checkpoint, ConfigError):
            raise checkpoint
        clock.lap("init")
        model = build_model(config, None if checkpoint else spec.seed)
        if checkpoint is None:
            engine = start_engine(deepspeed, model, spec.train, data_size, where)
            reset_state(engine)
            clock.lap("engine")
            step = 0
        else:
            with Reader(checkpoint) as reader:
                fill(model, reader)
                engine = start_engine(deepspeed, model, spec.train, data_size, where)
                clock.lap("engine")
                scatter(engine, reader)
                step = int(reader.manifest["state"]["step"])
        clock.lap("restore")
        versions = {
            "headrace": __version__,
            "torch": str(torch.__version__),
            "deepspeed": deepspeed.__version__,
            "python": platform.python_version(),
        }
        if dist.get_rank() == 0:
            _record_start(spec, checkpoint, skipped, step, data_size, clock, versions)
        return cls(spec, store, config, loader, engine, where, data_size, step, versions)

    def to_the_end(self, on_checkpoint: OnCheckpoint | None) -> None:
        """Take the remaining steps, with a checkpoint every so often and after the last."""
        settings = self.spec.train.checkpoint
        # Rank 0 looks for all: where no gathering holds it up, it may have published before another rank looks.
        if self.step == 0 and settings.initial and agreed(not (self.spec.checkpoints / checkpoint_name(0)).exists()):
            self.checkpoint(on_checkpoint)
        while self.step < self.spec.train.steps:
            self.take_step()
            if self.step % settings.every == 0 or self.step == self.spec.train.steps:
                self.checkpoint(on_checkpoint)

    def take_step(self) -> None:
        """One optimizer step and its line in metrics.jsonl."""
        spec, started = self.spec, time.perf_counter()
        examples = [
            spec.objective.corrupt(torch.from_numpy(sequences), self.store.eos).to(self.where)
            for sequences in self.loader.micro_batches(self.step)
        ]
        waited = time.perf_counter() - started
        rate = learning_rate(spec.train.schedule, spec.train.optimizer.lr, self.step, spec.train.steps)
        result = optimizer_step(self.engine, examples, spec.objective, rate, spec.train.optimizer.clip, self.data_size)
        self.step += 1
        self.loss = result.loss
        if dist.get_rank() == 0:
            self.record(result, rate, time.perf_counter() - started, waited)
        if not (math.isfinite(result.loss) and math.isfinite(result.grad_norm)):
            raise TrainingDiverged(
                f"optimizer step {self.step}: loss {result.loss}, gradient norm {result.grad_norm}; "
                f"lower train.optimizer.lr ({spec.train.optimizer.lr}) or lengthen train.schedule.warmup, and run again."
            )

    def record(self, result: StepResult, rate: float, seconds: float, waited: float) -> None:
        batch = self.spec.train.batch.global_batch * self.model.sequence_length
        peak = peak_flops(self.where, self.spec.train.precision)
        speed = batch / seconds
        line = {
            "step": self.step,
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "lr": rate,
            "tokens": self.step * batch,
            "tokens_per_s": round(speed, 1),
            "mfu": None if peak is None else round(speed * flops_per_token(self.model) / (peak * self.data_size), 4),
            "data_wait_s": round(waited, 6),
            "peak_rss_bytes": peak_memory(),  # of rank 0, so far
        }
        storage.append_line(self.spec.run / "train" / "metrics.jsonl", line)

    def checkpoint(self, on_checkpoint: OnCheckpoint | None) -> None:
        """Publish the state, delete what retention lets go, and tell the launcher."""
        spec = self.spec
        about = {
            "model": self.model.model_dump(mode="json"),
            "state": {
                "step": self.step,
                "samples": self.step * spec.train.batch.global_batch,
                "tokens": self.step * spec.train.batch.global_batch * self.model.sequence_length,
                "seed": spec.seed,
                "tokens_fingerprint": self.store.fingerprint,
                "loss": self.loss,
            },
            "config": spec.fixed(self.store.fingerprint),
            "layout": {**spec.train.layout.model_dump(), "data": self.data_size, "precision": spec.train.precision},
            "versions": self.versions,
        }
        save(self.engine, spec.checkpoints, self.step, about, spec.tokens / "tokenizer.json")
        if dist.get_rank() == 0:
            for name in prune(spec.run, spec.train.checkpoint.keep, spec.owed):
                log.info("checkpoint %s deleted: %d newer ones are kept", name, spec.train.checkpoint.keep)
        if on_checkpoint is not None:
            on_checkpoint({"step": self.step, "loss": self.loss})


def _loader(spec: TrainSpec, store: TokenStore, data_size: int) -> Loader:
    unknown = [name for name in store.sources if name not in spec.mixture]
    if unknown:
        raise ConfigError(f"mixture: no weight for {', '.join(unknown)}, which {spec.tokens} holds; name each source, 0 leaves it out.")
    counts = {name: store.num_sequences(name, "train") for name in store.sources}
    order = Order(spec.seed, counts, {name: spec.mixture[name] for name in store.sources})
    return Loader(store, order, spec.train.batch.global_batch, spec.train.batch.micro_batch, dist.get_rank(), data_size)


def _restorable(spec: TrainSpec, fingerprint: str) -> tuple[Path | ConfigError | None, list[str]]:
    """The checkpoint to go on from and what was wrong with newer ones; a refusal is returned, for every rank to raise."""
    sweep(spec.checkpoints)
    checkpoint, skipped = newest_valid(spec.checkpoints)
    for breach in skipped:
        log.warning("checkpoint passed over: %s", breach)
    if checkpoint is not None:
        try:
            with Reader(checkpoint) as reader:
                check_unchanged(checkpoint, reader.manifest["config"], spec.fixed(fingerprint))
        except ConfigError as refusal:
            return refusal, skipped
    return checkpoint, skipped


def _record_start(
    spec: TrainSpec, checkpoint: Path | None, skipped: list[str], step: int, data_size: int, clock: Clock, versions: dict[str, str]
) -> None:
    """Drop the metrics of steps that will be taken again, and add a line to workers.jsonl."""
    drop_after(spec.run / "train" / "metrics.jsonl", step)
    line = {
        "time": time.time(),
        "world": dist.get_world_size(),
        "layout": {**spec.train.layout.model_dump(), "data": data_size},
        "restored_step": None if checkpoint is None else step,
        "skipped_checkpoints": skipped,
        "start_seconds": clock.laps,
        "versions": versions,
    }
    storage.append_line(spec.run / "train" / "workers.jsonl", line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, help="JSON file of TrainSpec.plain()")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    train(json.loads(parser.parse_args().spec.read_text()))
    leave()


if __name__ == "__main__":
    main()
