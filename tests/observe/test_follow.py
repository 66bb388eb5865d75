from __future__ import annotations

import shutil

import pytest

from headrace.events import event_log, mistakes
from headrace.observe import follow
from headrace.observe.follow import Follower
from headrace.storage import read_lines


@pytest.fixture(autouse=True)
def at_every_look(monkeypatch):
    for name in ("LOOK_S", "PROGRESS_S", "RESULTS_S"):
        monkeypatch.setattr(follow, name, 0.0)


def told(run, kind=None):
    events = read_lines(run.path / "events.jsonl")
    assert [mistakes(event) for event in events] == [[] for _ in events]
    return [event for event in events if kind in (None, event["event"])]


def follower(run, suites=("fast",)):
    return Follower(run.path, 20, suites, event_log(run.path))


def test_steps_checkpoints_incidents_and_results_are_told_as_they_come(run):
    following = follower(run)
    following.look()
    assert told(run) == []
    run.start()
    run.steps(1, 5)
    run.checkpoint(5)
    following.look()
    run.steps(6, 7)
    run.incident("skip", "step 6 was not taken: spike")  # not told: there can be many
    run.incident("rewind", "step 7: back to step 5")
    run.result(5)
    following.look()
    following.look()
    assert [event["done"] for event in told(run, "progress") if event["stage"] == "train"] == [5, 7]
    last = [event for event in told(run, "progress") if event["stage"] == "train"][-1]
    assert (last["total"], last["tokens"], last["tokens_per_s"]) == (20, 700, 50.0) and last["left_s"] is not None
    (checkpoint,) = told(run, "checkpoint")
    assert (checkpoint["step"], checkpoint["bytes"], checkpoint["stall_s"]) == (5, 5000, 0.25)
    (incident,) = told(run, "incident")
    assert (incident["kind"], incident["message"]) == ("rewind", "step 7: back to step 5")
    (result,) = told(run, "evaluation")
    assert (result["checkpoint"], result["status"]) == ("step-00000005", "scored")
    assert (result["bits_per_byte"], result["validation_loss"]) == (2.0, 4.0)
    assert [event["total"] for event in told(run, "progress") if event["stage"] == "evaluate"] == [1]


def test_the_next_driver_tells_what_came_meanwhile_and_nothing_twice(run):
    with follower(run) as following:
        run.steps(1, 5)
        run.checkpoint(5)
        run.incident("failure", "rank 0 died")
        run.result(5)
        following.look()
    run.checkpoint(10)
    run.result(10, status="failed", reason="it broke")
    with follower(run):
        pass
    assert [event["step"] for event in told(run, "checkpoint")] == [5, 10]
    assert len(told(run, "incident")) == 1
    assert [(event["checkpoint"], event["status"]) for event in told(run, "evaluation")] == [
        ("step-00000005", "scored"),
        ("step-00000010", "failed"),
    ]
    assert told(run, "evaluation")[-1]["reason"] == "it broke"


def test_a_result_that_a_rewind_forgot_is_told_when_it_is_there_again(run):
    following = follower(run)
    run.result(5, bits=3.0)
    following.look()
    shutil.rmtree(run.path / "eval" / "step-00000005")
    following.look()
    run.result(5, bits=2.0)
    following.look()
    assert [event["bits_per_byte"] for event in told(run, "evaluation")] == [3.0, 2.0]


def test_what_is_owed_counts_every_suite_and_takes_as_long_as_the_results_before(run, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(follow.time, "monotonic", lambda: now[0])
    following = follower(run, ("fast", "benchmarks"))
    run.checkpoint(5)
    run.checkpoint(10)
    following.look()
    now[0] += 8.0
    run.result(10)
    following.look()
    (progress,) = [event for event in told(run, "progress") if event["stage"] == "evaluate"]
    assert (progress["done"], progress["total"], progress["left_s"]) == (1, 4, 24.0)  # 8 s a result


def test_a_loss_that_is_no_number_and_a_result_that_is_none_end_nothing(run, caplog):
    following = follower(run)
    run.steps(1, 2, loss=float("nan"))
    following.look()
    assert told(run, "progress")[-1]["loss"] is None
    run.result(5)
    (run.path / "eval" / "step-00000005" / "fast.json").write_text("{")
    following.look()
    following.look()
    assert len([record for record in caplog.records if "progress is not told" in record.message]) == 1
