"""What is decided about a run, from what is on storage and what the cluster says."""

from __future__ import annotations

import pytest

from headrace.control.attempts import ATTEMPTS, LONGEST_BACKOFF_S, Attempt, Ending, GivenUp, History
from headrace.control.jobs import Job, Listing, State
from headrace.control.reconcile import Adopt, Begin, Finish, GiveUp, Submit, View, plan

NOW, TICK_S = 1000.0, 0.5
TRAIN = Job("train", "train_model.py", ("run",), {}, goal="g")
KILLED = Ending("infrastructure", 137, "killed")


def evaluation(step):
    return Job(f"evaluate-step-{step:08d}-fast", "evaluate_checkpoint.py", ("run", f"step-{step:08d}", "fast"), {"evaluate": 1})


def attempt(job, number=1, previous=None, **other):
    values = {"submission_id": f"{job.name}-a{number}", "token": f"t{number}", "spec_sha256": job.spec_sha256, "cluster": "here"}
    return Attempt(number, **{**values, "progress": 0, "time": 0.0, "not_before": 0.0, "previous": previous, **other})


def after(job, *endings):
    """The attempts that so many endings make, one at work behind them."""
    return tuple(attempt(job, number, previous) for number, previous in enumerate((None, *endings), 1))


def state(one, job, status, **other):
    values = {"exit_code": None, "message": "", "token": one.token, **other}
    return State(one.submission_id, job.name, one.number, status, **values)


def view(wanted=(TRAIN,), histories=None, states=(), cluster="here", **other):
    listing = Listing(cluster, {each.submission_id: each for each in states})
    known = {"complete": False, "alive": frozenset(), "endings": {}, "following": frozenset(), "slots": 1, "since": 500.0}
    return View(listing, tuple(wanted), histories=histories or {}, **{**known, **other})


def decided(**known):
    return list(plan(view(**known), NOW, TICK_S).actions)


def failed(job, *endings, ending=KILLED, **more):
    """What is decided once the newest attempt has ended as `ending`."""
    attempts = after(job, *endings)
    newest = attempts[-1]
    histories = {job.name: History(attempts, more.pop("given_up", None))}
    ended = {newest.submission_id: ending}
    return decided(wanted=(job,), histories=histories, states=[state(newest, job, "FAILED")], endings=ended, **more)


def test_what_was_never_tried_is_begun():
    assert decided() == [Begin(TRAIN, 1, None)]


def test_what_is_at_work_is_waited_for_and_adopted_once():
    one = attempt(TRAIN)
    known = {"histories": {"train": History((one,))}, "states": [state(one, TRAIN, "RUNNING")]}
    assert decided(**known) == [Adopt(TRAIN, one.submission_id)]
    assert decided(**known, following=frozenset({one.submission_id})) == []
    assert plan(view(**known, following=frozenset({one.submission_id})), NOW, TICK_S).look_in_s == TICK_S


def test_success_is_what_is_on_storage_and_not_what_the_cluster_says():
    one = attempt(TRAIN)
    ending = Ending("infrastructure", 0, "ended without its result")
    begun = decided(
        histories={"train": History((one,))}, states=[state(one, TRAIN, "SUCCEEDED", exit_code=0)], endings={one.submission_id: ending}
    )
    assert begun == [Begin(TRAIN, 2, ending, failed=1)]
    done = decided(wanted=(), states=[state(one, TRAIN, "FAILED")], following=frozenset({one.submission_id}), complete=True)
    assert done == [Finish("train", one.submission_id)]


def test_a_job_that_is_called_failed_and_lives_is_not_doubled():
    one = attempt(TRAIN)
    known = {"histories": {"train": History((one,))}, "states": [state(one, TRAIN, "FAILED")], "following": frozenset({one.submission_id})}
    assert decided(**known, alive=frozenset({one.submission_id})) == []
    assert not plan(view(**{**known, "wanted": ()}, alive=frozenset({one.submission_id}), complete=True), NOW, TICK_S).finished


def test_an_attempt_that_the_cluster_does_not_list_is_submitted_under_its_name():
    one = attempt(TRAIN)
    assert decided(histories={"train": History((one,))}) == [Submit(TRAIN, 1, one.submission_id, one.token)]


def test_an_attempt_waits_for_its_time_and_no_longer_than_any():
    later = attempt(TRAIN, not_before=NOW + 2)
    waiting = plan(view(histories={"train": History((later,))}), NOW, TICK_S)
    assert waiting.actions == () and waiting.look_in_s == 2.0
    of_a_clock_ahead = attempt(TRAIN, not_before=NOW + 10 * LONGEST_BACKOFF_S)
    assert decided(histories={"train": History((of_a_clock_ahead,))}) == [Submit(TRAIN, 1, of_a_clock_ahead.submission_id, "t1")]


def test_what_was_lost_with_its_cluster_is_begun_anew_and_not_counted():
    one = attempt(TRAIN, cluster="gone")
    (begun,) = decided(histories={"train": History((one,))})
    assert (begun.number, begun.previous.kind, begun.failed) == (2, "uncounted", 0)


@pytest.mark.parametrize("kind", ["infrastructure", "user", "final"])
def test_each_kind_of_failure_has_its_budget(kind):
    ending = Ending(kind, 1, "broke")
    for before in range(ATTEMPTS[kind] - 1):
        assert failed(TRAIN, *[ending] * before, ending=ending) == [Begin(TRAIN, before + 2, ending, failed=before + 1)]
    (last,) = failed(TRAIN, *[ending] * (ATTEMPTS[kind] - 1), ending=ending)
    assert last == GiveUp(TRAIN, ATTEMPTS[kind], f"train-a{ATTEMPTS[kind]}", ending, ATTEMPTS[kind])


def test_stops_and_failures_of_another_kind_do_not_count():
    user, stopped = Ending("user", 1, "broke"), Ending("uncounted", None, "stopped")
    (begun,) = failed(TRAIN, KILLED, stopped, KILLED, ending=user)
    assert begun == Begin(TRAIN, 5, user, failed=1)
    (begun,) = failed(TRAIN, *[user] * (ATTEMPTS["user"] - 1), ending=stopped)
    assert begun == Begin(TRAIN, ATTEMPTS["user"] + 1, stopped)


def test_failures_before_the_last_progress_do_not_count():
    user = Ending("user", 1, "broke")
    attempts = (attempt(TRAIN), attempt(TRAIN, 2, KILLED, progress=10), attempt(TRAIN, 3, KILLED, progress=10))
    one = History(attempts)
    still = Job("train", "train_model.py", ("run",), {}, goal="g", progress=10)
    further = Job("train", "train_model.py", ("run",), {}, goal="g", progress=20)
    assert one.failures("infrastructure", still) == 2 and one.failures("infrastructure", further) == 0
    assert one.failures("user", still) == 0 and user.kind == "user"


def test_what_had_been_given_up_is_tried_again_when_it_is_asked_for_again():
    user = Ending("user", 1, "broke")
    before, meanwhile = GivenUp(user, 400.0), GivenUp(user, 600.0)
    (begun,) = failed(TRAIN, user, ending=user, given_up=before)
    assert (begun.number, begun.previous.kind) == (3, "asked again")
    (end,) = failed(TRAIN, user, ending=user, given_up=meanwhile)  # by another controller, at work at the same time
    assert isinstance(end, GiveUp)
    assert failed(TRAIN, user, Ending("asked again", None, ""), ending=user) == [Begin(TRAIN, 4, user, failed=1)]


def test_what_makes_something_else_is_stopped_and_replaced():
    other = Job("train", "train_model.py", ("run",), {}, goal="another configuration")
    one = attempt(other)
    (begun,) = decided(histories={"train": History((one,))}, states=[state(one, other, "RUNNING")])
    assert (begun.number, begun.stop, begun.failed) == (2, one.submission_id, 0)


def test_a_job_of_a_run_that_was_deleted_is_not_taken_for_ours():
    one = attempt(TRAIN)
    (begun,) = decided(histories={"train": History((one,))}, states=[state(one, TRAIN, "SUCCEEDED", token="of another")])
    assert (begun.number, begun.previous.kind) == (2, "uncounted")


def test_evaluations_take_slots_the_most_urgent_first():
    jobs = tuple(evaluation(step) for step in (30, 20, 10))
    assert decided(wanted=jobs, slots=2) == [Begin(jobs[0], 1, None), Begin(jobs[1], 1, None)]
    one = attempt(jobs[1])
    at_work = {"histories": {jobs[1].name: History((one,))}, "states": [state(one, jobs[1], "RUNNING")]}
    following = frozenset({one.submission_id})
    assert decided(wanted=jobs, slots=2, following=following, **at_work) == [Begin(jobs[0], 1, None)]
    assert decided(wanted=(TRAIN, *jobs), slots=1, following=following, **at_work) == [Begin(TRAIN, 1, None)], "training needs none"


def test_a_failed_evaluation_is_booked_without_a_slot_and_holds_up_no_other():
    first, second = evaluation(20), evaluation(10)
    one = attempt(first)
    known = {"histories": {first.name: History((one,))}, "states": [state(one, first, "FAILED")], "endings": {one.submission_id: KILLED}}
    assert decided(wanted=(first, second), **known) == [Begin(first, 2, KILLED, failed=1), Begin(second, 1, None)]


def test_a_run_is_finished_once_nothing_that_it_waited_for_is_at_work():
    one = attempt(TRAIN)
    running = {"wanted": (), "complete": True, "states": [state(one, TRAIN, "RUNNING")]}
    assert not plan(view(**running, following=frozenset({one.submission_id})), NOW, TICK_S).finished
    assert plan(view(**running), NOW, TICK_S).finished
    assert not plan(view(wanted=(), complete=False), NOW, TICK_S).finished
