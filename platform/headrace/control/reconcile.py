"""What to do next for a run: a pure function of what is on storage, what the cluster says, and the time.

A job is wanted as long as its work is not on storage; what the cluster says of a job only tells whether to wait for it. So it does not
matter which controller looks, nor how often, nor what one of them did just before it was killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.control.attempts import ATTEMPTS, Ending, History, is_due
from headrace.control.jobs import Job, Listing

POOL = frozenset({"evaluate", "baselines"})  # stages whose jobs share the slots of evaluation
LONGEST_LOOK_S = 5.0  # another controller, or a user, may change things at any time


@dataclass(frozen=True)
class View:
    """Everything that a decision rests on."""

    listing: Listing
    wanted: tuple[Job, ...]  # the most urgent first: what may be done now and is not on storage
    complete: bool  # nothing is wanted, nor will be: the run is where it was to be brought
    histories: Mapping[str, History]  # of jobs that were ever attempted, by name
    alive: frozenset[str]  # submissions that the cluster calls over, but whose process gives signs of life
    endings: Mapping[str, Ending]  # of the newest attempts that are over and left nothing done, by submission id
    following: frozenset[str]  # submissions that this controller saw at work
    slots: int  # jobs of `POOL` that may be at work at once
    since: float  # when this controller was started; what had been given up before is asked for again


@dataclass(frozen=True)
class Begin:
    """Make attempt `number`, and submit it once it is due."""

    job: Job
    number: int
    previous: Ending | None  # how the attempt before ended
    failed: int = 0  # how often it ended so, which decides how long to wait
    stop: str | None = None  # the attempt before, if it is at work


@dataclass(frozen=True)
class Submit:
    """Submit an attempt that is on storage and, as far as is known, not on the cluster."""

    job: Job
    number: int
    submission_id: str
    token: str


@dataclass(frozen=True)
class Adopt:
    """Wait for a job that somebody else submitted."""

    job: Job
    submission_id: str


@dataclass(frozen=True)
class Finish:
    """A job that was waited for is over, and its work is there or not wanted any more."""

    stage: str
    submission_id: str


@dataclass(frozen=True)
class GiveUp:
    """Record that a job is not tried again."""

    job: Job
    number: int
    submission_id: str
    ending: Ending
    attempts: int


Action = Begin | Submit | Adopt | Finish | GiveUp


@dataclass(frozen=True)
class Plan:
    actions: tuple[Action, ...]
    look_in_s: float  # seconds until it is worth looking again
    finished: bool


def plan(view: View, now: float, tick_s: float) -> Plan:
    """What to do now, and when to look again.

    Args:
        now: seconds since 1970.
        tick_s: between two looks while something is at work.
    """
    at_work = {id for id, state in view.listing.states.items() if state.active} | view.alive
    jobs = {job.name for job in view.wanted}
    actions: list[Action] = []
    for id in sorted(view.following - at_work):
        state = view.listing.states.get(id)
        if state is not None and state.job not in jobs:
            actions.append(Finish(state.job.split("-")[0], id))
    free = view.slots - sum(view.listing.states[id].job.split("-")[0] in POOL for id in at_work)
    look_in_s = LONGEST_LOOK_S
    for job in view.wanted:
        action = _decide(job, view, at_work, now)
        if isinstance(action, float):
            look_in_s = min(look_in_s, action)
        elif isinstance(action, Begin | Submit) and job.stage in POOL and not (isinstance(action, Begin) and action.failed):
            if free > 0:  # a failure is recorded in any case: its next attempt waits, and takes a slot when it is due
                actions.append(action)
                free -= 1
        elif action is not None:
            actions.append(action)
    waiting = view.following & at_work
    if waiting or actions or free <= 0:
        look_in_s = min(look_in_s, tick_s)
    return Plan(tuple(actions), look_in_s, view.complete and not waiting)


def _decide(job: Job, view: View, at_work: set[str], now: float) -> Action | float | None:
    """What to do about one job whose work is not there; seconds to wait for its time; None while it is at work."""
    history = view.histories.get(job.name, History())
    newest = history.newest
    if newest is None:
        return Begin(job, 1, None)
    id, following_number = newest.submission_id, newest.number + 1
    state = view.listing.states.get(id)
    if state is not None and state.token is not None and state.token != newest.token:
        return Begin(job, following_number, Ending("uncounted", None, "its name is that of a job of a run that was deleted"))
    if newest.spec_sha256 != job.spec_sha256:
        stop = id if id in at_work else None
        return Begin(job, following_number, Ending("uncounted", None, "something else is to be made now"), stop=stop)
    if id in at_work:
        return None if id in view.following else Adopt(job, id)
    if history.given_up is not None:
        if history.given_up.time >= view.since:
            return GiveUp(job, newest.number, id, history.given_up.ending, len(history.attempts))
        return Begin(job, following_number, Ending("asked again", None, "it had been given up, and is asked for again"))
    if state is None:
        if newest.cluster != view.listing.cluster:
            return Begin(job, following_number, Ending("uncounted", None, "it was lost with its cluster"))
        # Also where the list is behind the times: a job of that name that is there is found to be so, and adopted.
        return Submit(job, newest.number, id, newest.token) if is_due(newest, now) else newest.not_before - now
    ending = view.endings.get(id)
    if ending is None:
        return None  # it ended between two looks; the next one tells how
    if ending.kind not in ATTEMPTS:
        return Begin(job, following_number, ending)
    failed = history.failures(ending.kind, job) + 1
    if failed >= ATTEMPTS[ending.kind]:
        return GiveUp(job, newest.number, id, ending, len(history.attempts))
    return Begin(job, following_number, ending, failed)
