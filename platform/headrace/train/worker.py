"""The training worker: the same function under Ray Train, under torchrun and in a spawned process.

torchrun --nproc-per-node 2 -m headrace.train.worker SPEC.json
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from headrace import fence
from headrace.config import ConfigError
from headrace.tokens.store import TokenStore
from headrace.train.drain import Drain, Drained, Notice
from headrace.train.loop import Clock, Rewind, Run
from headrace.train.place import settled
from headrace.train.process import agreed, device, import_deepspeed, join, leave, narrow, refusing_together
from headrace.train.spec import TrainSpec

log = logging.getLogger("headrace")


def train(values: dict[str, Any], notices: Sequence[Notice] = ()) -> None:
    """Train to the last step, from the newest whole checkpoint of the run if there is one; called by every rank.

    Ranks that the layout has no use for return at once.

    Args:
        values: `TrainSpec.plain()`.
        notices: sources, besides a SIGTERM, of the word that this worker is to go.

    Raises (each on every rank alike):
        ConfigError: the configuration does not fit the workers, the data, or the run's checkpoints.
        TrainingDiverged: too many steps in a row were no good, more often than training may go back.
        CheckpointFailed: a checkpoint could not be written.
        Drained: a worker was asked to go; the state is saved, and the same command goes on.
        Fenced, GroupReplaced: a newer attempt, or a newer group of workers, trains this run.
    """
    clock = Clock()
    spec = TrainSpec.read(values)
    torch.set_num_threads(spec.train.threads)
    where = device()
    deepspeed = import_deepspeed(where)
    clock.lap("import")
    join(where)
    with refusing_together():
        store = TokenStore.open(spec.tokens)
    model = spec.model.sized(store.vocab_size, store.sequence_length)
    spec, place = settled(spec, model, where)
    if not narrow(place.used):
        log.info("this worker has no part in the layout: %s", "; ".join(place.explanation))
        return
    group = _claimed(spec.run)
    with Drain([*notices, *([group.glance] if group else [])]) as drain:
        while True:
            run = Run.start(spec, store, model, deepspeed, where, clock, drain, group)
            if dist.get_rank() == 0:
                run.record_start(clock, place)
            try:
                run.to_the_end()
            except Rewind as rewind:
                log.warning("%s", rewind)
                clock = Clock()
                continue
            finally:
                run.close()
            return


def _claimed(run: Path) -> fence.Group | None:
    """The claim of this group of workers, on rank 0; collective. From now on no group before it can commit.

    Raises:
        Fenced: on every rank; a newer attempt at training has begun.
    """
    group, refusal = None, None
    if dist.get_rank() == 0:
        try:
            group = fence.Group.claim(run)
        except fence.Fenced as error:
            refusal = error
    refusal = agreed(refusal)
    if refusal is not None:
        raise refusal
    return group


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, help="JSON file of TrainSpec.plain()")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    code = 0
    try:
        train(json.loads(parser.parse_args().spec.read_text()))
    except Drained as notice:
        log.warning("%s", notice)
        code = 75
    except (fence.Fenced, fence.GroupReplaced) as error:
        log.warning("%s; this worker ends", error)
        code = fence.EXIT_CODE
    except ConfigError as error:
        log.error("%s", error)
        code = 2
    leave(code)


if __name__ == "__main__":
    main()
