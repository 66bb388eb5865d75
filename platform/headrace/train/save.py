"""Writing a run's checkpoint from all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from headrace.checkpoint.canonical import checkpoint_name
from headrace.checkpoint.write import Writer
from headrace.train.process import agreed
from headrace.train.state import gather


class CheckpointFailed(RuntimeError):
    """Rank 0 could not write a checkpoint; the message says why, on every rank."""


def save(engine: Any, root: Path, step: int, about: Mapping[str, Any], tokenizer: Path) -> Path:
    """Gather the engine's state and publish it as the checkpoint of a step; collective, and no rank returns before it is published.

    Args:
        about, tokenizer: see `Writer.publish`.

    Raises:
        CheckpointFailed: the file system refuses; nothing is left behind and earlier checkpoints are untouched.
    """
    writer, failure = None, None
    try:
        writer = Writer(root, step) if dist.get_rank() == 0 else None
    except OSError as error:
        failure = error
    for kind, name, tensor in gather(engine):
        # A disk that fills up stops the writing, not the gathering: the other ranks are inside the same collectives.
        if writer is not None and failure is None:
            try:
                writer.add(kind, name, tensor)
            except OSError as error:
                failure = error
    if writer is not None:
        try:
            if failure is None:
                writer.publish(about, tokenizer)
        except OSError as error:
            failure = error
        finally:
            writer.discard()
    message = agreed(f"{root / checkpoint_name(step)}: could not be written: {failure}" if failure else None)
    if message is not None:
        raise CheckpointFailed(message) from failure
    return root / checkpoint_name(step)
