"""A worker that has started: from step to step, with a checkpoint every so often, to the last."""

from __future__ import annotations

import functools
import gc
import logging
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from headrace import __version__, storage
from headrace.batches import Loader, Order, Sequences, with_replay
from headrace.checkpoint import committed
from headrace.checkpoint.canonical import MANIFEST, checkpoint_name, step_of
from headrace.checkpoint.interval import Interval
from headrace.checkpoint.retention import forget, prune
from headrace.config import ConfigError
from headrace.fence import Group
from headrace.model import ModelConfig, flops_per_token
from headrace.stage import peak_memory
from headrace.tokens.store import TokenStore
from headrace.train import spikes
from headrace.train.cadence import Cadence
from headrace.train.drain import Drain, Drained
from headrace.train.elastic import Settled
from headrace.train.engine import build_module, clips_itself, start_engine
from headrace.train.groups import Ranks, ranks_of
from headrace.train.incidents import record
from headrace.train.metrics import drop_after, peak_flops
from headrace.train.process import agreed, let_go, refusing_together
from headrace.train.restore import Restored, restore
from headrace.train.save import Saved, Saver
from headrace.train.schedule import learning_rate
from headrace.train.spec import TrainSpec
from headrace.train.state import fill, gather, loss_scale, reset_state, scatter, set_loss_scale
from headrace.train.step import Stepper, StepResult, SummedLoss
from headrace.train.watchdog import Watchdog

log = logging.getLogger("headrace")

CHECKPOINT_S = 3600.0  # for a checkpoint, before its worker counts as hanging


class Rewind(Exception):
    """Training goes back to the last checkpoint and leaves out the data since."""


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
    """What a worker needs from step to step."""

    spec: TrainSpec  # its layout settled
    store: TokenStore
    model: ModelConfig
    loader: Loader
    ranks: Ranks
    engine: Any
    stepper: Stepper
    saver: Saver
    watchdog: Watchdog
    cadence: Cadence
    step: int  # optimizer steps taken
    windows: tuple[spikes.Window, ...]  # data left out
    versions: dict[str, str]
    where: torch.device
    restored: Restored
    group: Group | None  # rank 0's, which commits for all

    @classmethod
    def start(
        cls,
        spec: TrainSpec,
        store: TokenStore,
        model: ModelConfig,
        deepspeed: Any,
        where: torch.device,
        clock: Clock,
        drain: Drain,
        group: Group | None,
    ) -> Run:
        """Model, engine and loader, at the step of the newest whole checkpoint; collective."""
        assert spec.train.layout != "auto"
        ranks = ranks_of(spec.train.layout)
        restored = restore(spec, store, model)
        with refusing_together():
            loader = _loader(spec, store, ranks)
        clock.lap("init")
        loss = SummedLoss(spec.objective, ranks.tensor)
        with restored:
            module = build_module(deepspeed, model, spec.seed, spec.train, ranks, loss)
            fill(module, restored.whole, ranks)
            engine = start_engine(deepspeed, module, spec.train, ranks, where, model.hidden)
            clock.lap("engine")
            if restored.checkpoint is not None:
                scatter(engine, restored.whole, restored.updates, ranks)
                set_loss_scale(engine, restored.state.get("loss_scale"))
            else:
                reset_state(engine)
        clock.lap("restore")
        own_norm = not clips_itself(spec.train, ranks)
        history = spikes.History.read(spec.train.spikes, restored.state.get("recent"))
        stepper = Stepper(engine, ranks, loss, spec.train.optimizer.clip, own_norm, spec.train.spikes, where, drain.asked, history)
        tidy, refusal = functools.partial(_tidy, spec), group.look if group else lambda: None
        saver = Saver(spec.checkpoints, ranks.writers, spec.train.checkpoint.asynchronous, tidy, refusal)
        watchdog = Watchdog(spec.run, dist.get_rank(), spec.train.timeout_s)
        versions = {
            "headrace": __version__,
            "torch": str(torch.__version__),
            "deepspeed": deepspeed.__version__,
            "python": platform.python_version(),
        }
        known = restored.state.get("interval")
        cadence = Cadence(spec.train.checkpoint, restored.step, Interval(*known) if known else None, sum(clock.laps.values()))
        begins = restored.step, restored.windows
        return cls(spec, store, model, loader, ranks, engine, stepper, saver, watchdog, cadence, *begins, versions, where, restored, group)

    def to_the_end(self) -> None:
        """Take the remaining steps, with a checkpoint every so often and after the last."""
        settings = self.spec.train.checkpoint
        # Rank 0 looks for all: where no gathering holds it up, it may have published before another rank looks.
        if self.step == 0 and settings.initial and agreed(not storage.present(self.spec.checkpoints / checkpoint_name(0) / MANIFEST)):
            self.checkpoint()
        while self.step < self.spec.train.steps:
            result = self.take_step()
            if result.drain:
                self.stop_if_replaced()
            if result.drain and self.step < self.spec.train.steps:
                self.checkpoint()
                self.finish()
                raise Drained(f"a worker was asked to go; step {self.step} is saved, and the same command goes on from it.")
            if self.stepper.history.skipped >= self.spec.train.spikes.patience:
                self.go_back(result)
            # Not between skipped steps: it would hold what is stored already, and retention give up the last one from before them.
            if self.step == self.spec.train.steps or (self.cadence.due(self.step) and not self.stepper.history.skipped):
                self.checkpoint()
        self.finish()

    def stop_if_replaced(self) -> None:
        """Raise Fenced or GroupReplaced on every rank if another attempt or group has begun; collective."""
        refusal = agreed(self.group.look() if self.group else None)
        if refusal is not None:
            raise refusal

    def take_step(self) -> StepResult:
        """One optimizer step and its line in metrics.jsonl."""
        spec, started = self.spec, time.perf_counter()
        self.watchdog.beat(self.step, "reading data")
        batch = self.step + spikes.batches_before(self.windows, self.step)
        examples = [
            spec.objective.corrupt(torch.from_numpy(sequences), self.store.eos, torch.from_numpy(numbers)).to(self.where)
            for sequences, numbers in self.loader.micro_batches(batch)
        ]
        waited = time.perf_counter() - started
        rate = learning_rate(spec.train.schedule, spec.train.optimizer.lr, self.step, spec.train.steps)
        self.watchdog.beat(self.step, "forward, backward and update")
        result = self.stepper.take(examples, rate)
        self.step += 1
        seconds = time.perf_counter() - started
        self.cadence.took(seconds)
        if dist.get_rank() == 0:
            self.record(result, rate, seconds, waited)
        return result

    def go_back(self, result: StepResult) -> None:
        """After too many skipped steps in a row, have training go back and leave out the data since; collective.

        Raises:
            Rewind: training goes back.
            TrainingDiverged: it did so too often already.
        """
        self.finish()
        self.stop_if_replaced()
        settings, root = self.spec.train.spikes, self.spec.checkpoints
        saved = agreed([step_of(folder) for folder in committed(root)])
        last = f"{result.skipped}: loss {result.loss:g}, gradient norm {result.grad_norm:g}"
        back = spikes.rewind(self.windows, settings, self.stepper.history, self.step, saved, last)
        if back is None:
            return
        if dist.get_rank() == 0:
            for name in forget(root, back.step):  # what comes in its place under the same name owes scores of its own
                storage.remove_tree(self.spec.run / "eval" / name)
            spikes.leave_out(self.spec.run, back.windows)
        dist.barrier()
        message = f"step {self.step}, {last}: back to step {back.step}, and on without the {back.windows[-1].batches} batches since"
        if dist.get_rank() == 0:
            record(self.spec.run, "rewind", message, step=self.step, to=back.step, batches_left_out=back.windows[-1].batches)
        raise Rewind(message)

    def record(self, result: StepResult, rate: float, seconds: float, waited: float) -> None:
        """The step's line, unless the group is replaced: what replaced it takes this step again. All ranks hear of it in the next."""
        batch = self.spec.train.batch.global_batch * self.model.sequence_length
        peak = peak_flops(self.where, self.spec.train.precision)
        speed = batch / seconds
        scale = loss_scale(self.engine)
        line = {
            "step": self.step,
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "lr": rate,
            "tokens": self.step * batch,
            "tokens_per_s": round(speed, 1),
            "mfu": None if peak is None else round(speed * flops_per_token(self.model) / (peak * dist.get_world_size()), 4),
            "data_wait_s": round(waited, 6),
            "peak_rss_bytes": peak_memory(),  # of rank 0, so far
            **({} if scale is None else {"loss_scale": scale["cur_scale"]}),
            **({} if result.skipped is None else {"skipped": result.skipped}),
        }
        if self.group and self.group.glance():
            return
        storage.append_line(self.spec.run / "train" / "metrics.jsonl", line, unless=self.group.look if self.group else None)
        if result.skipped not in (None, "overflow"):
            measured = {"loss": result.loss, "grad_norm": result.grad_norm}
            record(self.spec.run, "skip", f"step {self.step} was not taken: {result.skipped}", step=self.step, **measured)

    def checkpoint(self) -> None:
        """Have the state written; collective."""
        spec = self.spec
        samples = self.step * spec.train.batch.global_batch
        about = {
            "model": self.model.model_dump(mode="json"),
            "state": {
                "step": self.step,
                "samples": samples,
                "tokens": samples * self.model.sequence_length,
                "seed": spec.seed,
                "tokens_fingerprint": self.store.fingerprint,
                "loss": self.stepper.history.losses[-1] if self.stepper.history.losses else None,  # of the last step that was not skipped
                "recent": self.stepper.history.plain(),
                "left_out": [window.model_dump() for window in self.windows],
                "loss_scale": loss_scale(self.engine),
                "interval": self.cadence.found,
            },
            "config": spec.fixed(self.store.fingerprint),
            "layout": {**self.ranks.layout.model_dump(), "precision": spec.train.precision},
            "versions": self.versions,
        }
        self.watchdog.beat(self.step, "saving a checkpoint", CHECKPOINT_S)
        before = self.saver.save(gather(self.engine, self.ranks), self.step, about, spec.tokens / "tokenizer.json")
        self.cadence.wrote(self.step, before)
        self.note(before)

    def finish(self) -> None:
        """Wait for the last checkpoint; collective."""
        self.watchdog.beat(self.step, "waiting for a checkpoint", CHECKPOINT_S)
        self.note(self.saver.finish())
        storage.flush()

    def note(self, saved: Saved | None) -> None:
        """A line in checkpoints.jsonl: what a checkpoint cost."""
        if saved is not None and dist.get_rank() == 0:
            line = {"time": time.time(), "step": saved.step, "bytes": saved.bytes, "every": self.cadence.found and self.cadence.found.steps}
            seconds = {"stall_s": saved.stall_s, "waited_s": saved.waited_s, "written_s": saved.written_s}
            costs = {name: round(value, 6) for name, value in seconds.items()}
            storage.append_line(self.spec.run / "train" / "checkpoints.jsonl", {**line, **costs})

    def record_start(self, clock: Clock, place: Settled) -> None:
        """Drop the metrics of steps that will be taken again, and add a line to workers.jsonl."""
        drop_after(self.spec.run / "train" / "metrics.jsonl", self.step)
        line = {
            "time": time.time(),
            "world": dist.get_world_size(),
            "idle": place.idle,
            "layout": self.ranks.layout.model_dump(),
            "accumulation": place.accumulation,
            "why": place.explanation,
            "restored_step": self.step if self.restored.checkpoint else None,
            "skipped_checkpoints": self.restored.passed_over,
            "start_seconds": clock.laps,
            "versions": self.versions,
        }
        storage.append_line(self.spec.run / "train" / "workers.jsonl", line)

    def close(self) -> None:
        """End the threads of this run, and let go of the engine's memory."""
        self.watchdog.close()
        self.saver.close()
        let_go(self.engine)
        del self.engine, self.stepper, self.saver
        gc.collect()
        if self.where.type == "cuda":
            torch.cuda.empty_cache()


def _tidy(spec: TrainSpec, published: Path) -> None:
    """Delete the checkpoints that retention lets go."""
    settings = spec.train.checkpoint
    for name in prune(spec.run, settings.keep, spec.owed, settings.milestones, settings.best, step_of(published)):
        log.info("checkpoint %s deleted: %d newer ones are kept", name, settings.keep)


def _loader(spec: TrainSpec, store: TokenStore, ranks: Ranks) -> Loader:
    unknown = [name for name in store.sources if name not in spec.mixture]
    if unknown:
        raise ConfigError(f"mixture: no weight for {', '.join(unknown)}, which {spec.tokens} holds; name each source, 0 leaves it out.")
    sequences: Sequences = store
    weights = {name: spec.mixture[name] for name in store.sources}
    replay = spec.start.replay(spec.train.start.replay) if spec.start and spec.train.start else None
    if replay is not None:
        sequences, weights = with_replay(store, weights, replay)
    order = Order(spec.seed, {name: sequences.num_sequences(name, "train") for name in weights}, weights)
    return Loader(sequences, order, spec.train.batch.global_batch, spec.train.batch.micro_batch, ranks.data_rank, ranks.data_size)
