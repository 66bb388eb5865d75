"""Writing a run's checkpoint from all ranks, behind the next steps: training stands still only while the state is copied."""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from headrace import storage
from headrace.checkpoint.canonical import checkpoint_name
from headrace.checkpoint.write import Draft, Files, Kind, Part
from headrace.train.process import agreed

log = logging.getLogger("headrace")

SILENCE_S = 300.0  # without a byte from any writer, before one that is not through is taken for dead
CLOSING_S = 10.0  # the same where training has ended with an error, most likely that a peer is gone
SLAB_BYTES = 256 << 20  # a power of two: CUDA rounds pinned memory up to one
ALIGNMENT = 64  # bytes; every element type divides it


class CheckpointFailed(RuntimeError):
    """A checkpoint could not be written; the message says why, on every rank."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is published, and what it cost; seconds of rank 0."""

    step: int
    folder: Path
    bytes: int  # of its files
    written_s: float  # from the end of the copying until it was published
    stall_s: float = 0.0  # training stood still: gathering and copying, and, if not asynchronous, writing
    waited_s: float = 0.0  # training stood still before that, until the checkpoint before was published


class Saver:
    """Writes one checkpoint after the other; made and called by every rank alike.

    A checkpoint that fails raises CheckpointFailed on every rank at the next `save` or `finish`, with nothing left behind and earlier
    checkpoints untouched. The threads that write take part in no collective: one that met a training step's would hang both.
    """

    def __init__(
        self,
        root: Path,
        writers: Sequence[int] = (0,),
        asynchronous: bool = True,
        published: Callable[[Path], object] | None = None,
        refusal: Callable[[], Exception | None] = lambda: None,
    ) -> None:
        """
        Args:
            root: the folder of the run's checkpoints, the same storage on every node.
            writers: the ranks that keep tensors, rank 0 first.
            published: called on rank 0, in the background, once a checkpoint is published.
            refusal: called on rank 0, in the background, before that: what to raise on every rank instead of publishing.
        """
        if writers[0] != 0:
            raise ValueError(f"writers = {list(writers)}: rank 0 publishes and must be the first of them.")
        self._root, self._writers, self._asynchronous, self._published = root, tuple(writers), asynchronous, published
        self._refusal = refusal
        self._rank = dist.get_rank()
        self._memory = HostMemory(pinned=torch.cuda.is_available())
        self._thread: threading.Thread | None = None
        self._outcome: Saved | str | Exception | None = None  # rank 0's: of the last checkpoint, or why there is none; None: told already
        self._stall_s = self._waited_s = 0.0
        self._silence_s = SILENCE_S

    def save(
        self, tensors: Iterable[tuple[Kind, str, Tensor | None]], step: int, about: Mapping[str, Any], tokenizer: Path
    ) -> Saved | None:
        """Have the state of a step written; collective.

        Args:
            tensors: kind, canonical name, and the tensor on the one rank that keeps it; gone through to the end on every rank, for
                it may be a chain of collectives. Tensors may change once this returns.
            about, tokenizer: see `Draft.publish`; they may change, too.

        Returns:
            The checkpoint that was published since the last call, on every rank alike: this one if not asynchronous, else the one before.

        Raises:
            CheckpointFailed: that checkpoint was not; of the one asked for now nothing is written.
        """
        before, token = self._settled(step)
        draft = Draft(self._root, step, token)
        started = time.perf_counter()
        try:
            held, names, failure = self._copied(tensors)
        except BaseException:
            if self._rank == 0:
                draft.discard()
            raise
        if self._rank in self._writers:
            about = copy.deepcopy(about)
            self._thread = threading.Thread(
                target=self._write, args=(draft, step, held, names, failure, about, tokenizer), name=draft.final.name
            )
            self._thread.start()
        if not self._asynchronous:
            self._join()
        self._stall_s = time.perf_counter() - started
        return before if self._asynchronous else self.finish()

    def finish(self) -> Saved | None:
        """Wait until all is written; collective. The checkpoint that was published since the last call, if any.

        Raises:
            CheckpointFailed: it could not be written.
        """
        return self._settled(None)[0]

    def close(self) -> None:
        """Wait for this rank's own thread, whatever becomes of the others; no collective."""
        self._silence_s = CLOSING_S
        self._join()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _settled(self, step: int | None) -> tuple[Saved | None, str]:
        """What became of the last checkpoint, and the token of the draft of the next, if one is to begin; collective."""
        started = time.perf_counter()
        self._join()
        outcome, token = self._outcome, ""
        self._outcome = None
        waited = time.perf_counter() - started
        if self._rank == 0 and step is not None and not isinstance(outcome, str | Exception):
            try:
                token = Draft.begin(self._root, step).token
            except (OSError, storage.StorageError) as error:
                outcome = self._complaint(step, str(error))
        if isinstance(outcome, Saved):
            outcome = replace(outcome, stall_s=self._stall_s, waited_s=self._waited_s)
        found, token = agreed((outcome, token))
        if isinstance(found, Exception):
            raise found
        if isinstance(found, str):
            raise CheckpointFailed(found)
        self._waited_s = waited
        return found, token

    def _copied(self, tensors: Iterable[tuple[Kind, str, Tensor | None]]) -> tuple[list[tuple[Kind, str, Tensor]], list[str], str | None]:
        """Copies of what this rank keeps, the names of all tensors, and what went wrong."""
        self._memory.clear()
        held: list[tuple[Kind, str, Tensor]] = []
        names: list[str] = []
        failure = None
        for kind, name, tensor in tensors:
            names.append(name)
            if tensor is None or failure is not None:
                continue
            # Memory that runs out stops the copying, not the gathering: the other ranks are inside the same collectives.
            try:
                held.append((kind, name, self._memory.copy(tensor)))
            except (MemoryError, RuntimeError) as error:
                failure = f"{name} could not be copied to the host's memory: {error}"
        self._memory.wait()
        return held, names, failure

    def _write(
        self,
        draft: Draft,
        step: int,
        held: Sequence[tuple[Kind, str, Tensor]],
        names: list[str],
        failure: str | None,
        about: Mapping[str, Any],
        tokenizer: Path,
    ) -> None:
        """One rank's background thread."""
        started = time.perf_counter()
        writer = self._writers.index(self._rank)
        files = Files(draft, writer, len(self._writers))
        try:
            if failure is not None:
                raise MemoryError(failure)
            for kind, name, tensor in held:
                files.add(kind, name, tensor)
            files.finish()
            part = files.part(names)
        except Exception as error:
            part = Part(error=_told(error))
            # A disk that takes nothing may give nothing back, either; the draft goes with the next start.
            with contextlib.suppress(OSError, storage.StorageError):
                files.discard()
        if writer > 0:
            try:
                draft.record(writer, part)
            except (OSError, storage.StorageError) as error:
                log.error("%s: rank %d could not tell that it is through: %s", draft.final, self._rank, error)
            return
        self._outcome = outcome = self._publish(draft, step, part, about, tokenizer, started)
        if isinstance(outcome, str | Exception):
            log.error("%s", outcome)
        elif self._published is not None:
            try:
                self._published(outcome.folder)
            except (OSError, storage.StorageError) as error:  # the checkpoint itself is safe
                log.warning("%s: what follows its publication failed: %s", outcome.folder, error)

    def _publish(
        self, draft: Draft, step: int, part: Part, about: Mapping[str, Any], tokenizer: Path, started: float
    ) -> Saved | str | Exception:
        """Rank 0's part of the end: wait for the others, and publish what all of them wrote, or say why not."""
        others = {writer: f"rank {rank}" for writer, rank in enumerate(self._writers) if writer > 0}
        try:
            parts = [part, *draft.parts(others, lambda: self._silence_s)]
            errors = [f"{part.error} (rank {rank})" for rank, part in zip(self._writers, parts) if part.error is not None]
            if errors:
                return self._complaint(step, "; ".join(errors))
            if (refusal := self._refusal()) is not None:
                return refusal
            folder = draft.publish(parts, about, tokenizer)
            size = sum(storage.sizes(folder).values())
        except Exception as error:
            return self._complaint(step, _told(error))
        finally:
            with contextlib.suppress(OSError, storage.StorageError):
                draft.discard()
        return Saved(step, folder, size, time.perf_counter() - started)

    def _complaint(self, step: int, why: str) -> str:
        return f"{self._root / checkpoint_name(step)}: could not be written: {why}"


def _told(error: Exception) -> str:
    """An error in one line; of one that we did not foresee also its type."""
    foreseen = OSError | MemoryError | ValueError | storage.StorageError
    return str(error) if isinstance(error, foreseen) else f"{type(error).__name__}: {error}"


class HostMemory:
    """Memory that one checkpoint after the other is copied into: only the first one has to ask the system for it."""

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned  # a GPU writes into such memory by itself, and several times as fast
        self._slabs: list[Tensor] = []
        self._used: list[int] = []

    def clear(self) -> None:
        """Let go of all copies."""
        self._used = [0] * len(self._slabs)

    def copy(self, tensor: Tensor) -> Tensor:
        """A copy, row-major, that no later change of the tensor reaches; from a GPU it is complete after `wait`.

        Raises:
            RuntimeError: there is not so much memory.
        """
        size = tensor.nbytes
        slab = next((slab for slab, used in enumerate(self._used) if used + size <= self._slabs[slab].nbytes), len(self._slabs))
        if slab == len(self._slabs):
            whole = 1 << (max(size, SLAB_BYTES) - 1).bit_length()
            self._slabs.append(torch.empty(whole, dtype=torch.uint8, pin_memory=self._pinned))
            self._used.append(0)
        start = self._used[slab]
        self._used[slab] += -(-size // ALIGNMENT) * ALIGNMENT
        place = self._slabs[slab][start : start + size].view(tensor.dtype).view(tensor.shape)
        return place.copy_(tensor.detach(), non_blocking=self._pinned)

    def wait(self) -> None:
        """Return once all copies are complete."""
        if self._pinned:
            torch.cuda.current_stream().synchronize()
