"""How often to write a checkpoint: seldom enough that writing costs little, often enough that a failure loses little.

Both optima are over the time that is expected to be lost when failures come at random (exponentially) with a mean time between them:
what writing takes, against the work done again from the last checkpoint. Writing behind the training moves nothing of this: only
the time that training stands still is a cost, and the time until a checkpoint is published adds the same to every loss.

    Young 1974, "A first order approximation to the optimum checkpoint interval", doi:10.1145/361147.361115
    Daly 2006, "A higher order estimate of the optimum checkpoint interval for restart dumps", doi:10.1016/j.future.2004.11.016
"""

from __future__ import annotations

import math
from typing import NamedTuple

WARM_UP = 20  # optimizer steps between checkpoints for as long as their cost is not known


class Interval(NamedTuple):
    """How far checkpoints are apart, and what that costs."""

    steps: int  # optimizer steps
    seconds: float  # that these take, without the checkpoint
    lost: float  # share of all time that is expected to go into checkpoints and failures


def interval(cost_s: float, written_s: float, step_s: float, mtbf_s: float, restart_s: float) -> Interval:
    """The optimum, in whole optimizer steps.

    Args:
        cost_s: training stands still for one checkpoint.
        written_s: from then on until it is published; the next one waits for that, so none is begun earlier.
        step_s: one optimizer step.
        mtbf_s: mean time between failures of the whole job.
        restart_s: from a failure to the next step.
    """
    steps = max(1, round(daly(cost_s, mtbf_s) / step_s), math.ceil(written_s / step_s))
    return Interval(steps, steps * step_s, lost_share(steps * step_s, cost_s, mtbf_s, restart_s))


def young(cost_s: float, mtbf_s: float) -> float:
    """Seconds of work between two checkpoints, to first order in the cost."""
    return math.sqrt(2 * cost_s * mtbf_s)


def daly(cost_s: float, mtbf_s: float) -> float:
    """Seconds of work between two checkpoints, to higher order (Daly 2006, equation 20)."""
    if cost_s >= 2 * mtbf_s:
        return mtbf_s
    ratio = cost_s / (2 * mtbf_s)
    return young(cost_s, mtbf_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost_s


def lost_share(work_s: float, cost_s: float, mtbf_s: float, restart_s: float) -> float:
    """Share of all time that is expected to go into checkpoints, restarts and work done again.

    Of a run cut into segments of `work_s`, each is expected to take mtbf e^(restart/mtbf) (e^((work + cost)/mtbf) - 1) (Daly 2006,
    the complete model of section 3).
    """
    exponent = (work_s + cost_s) / mtbf_s
    if exponent + restart_s / mtbf_s > 700.0:  # e^x is larger than any float: next to nothing is ever finished
        return 1.0
    return 1.0 - work_s / (mtbf_s * math.exp(restart_s / mtbf_s) * math.expm1(exponent))
