"""The controller acting on a run's folder, beside a cluster whose every word the test decides."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from headrace import storage
from headrace.config import validate
from headrace.control import controller
from headrace.control.attempts import ATTEMPTS, History, history
from headrace.control.cluster import Running
from headrace.control.controller import Controller, GaveWay
from headrace.control.exits import FAILED, GATE, RETRY, RunError
from headrace.control.jobs import Jobs, beat_path, error_path
from headrace.control.look import BEAT_PATIENCE_S
from headrace.events import event_log
from headrace.run import RunConfig, resolved_yaml


class Words:
    """Ray's Jobs API: it takes every job, and says of it what it is told to say."""

    def __init__(self):
        self.jobs, self.away = {}, False

    def session(self):
        if self.away:
            raise ConnectionError("nobody there")
        return "session_1"

    def list_jobs(self):
        return list(self.jobs.values())

    def submit_job(self, **request):
        name = request["submission_id"]
        if name in self.jobs:
            raise RuntimeError(f"Request failed with status code 500: ValueError: Job with submission_id {name} already exists.")
        self.jobs[name] = SimpleNamespace(
            submission_id=name,
            status=SimpleNamespace(value="RUNNING"),
            driver_exit_code=None,
            message=None,
            error_type=None,
            metadata=request["metadata"],
        )
        return name

    def get_job_logs(self, submission_id):
        return "its log\n"

    def stop_job(self, submission_id):
        self.end(submission_id, "STOPPED")
        return True

    def end(self, name, status="FAILED", code=None, error_type=None):
        self.jobs[name].status.value = status
        self.jobs[name].driver_exit_code, self.jobs[name].error_type = code, error_type


class Rig:
    def __init__(self, folder):
        (folder / "raw.jsonl").write_text(json.dumps({"text": "the river ran past an old mill"}) + "\n")
        values = {
            "out": str(folder / "run"),
            "sources": [{"name": "mill", "kind": "prose", "path": str(folder / "raw.jsonl"), "filters": []}],
            "train": {"layout": {"data": 1}},
        }
        self.config = validate(RunConfig, values, "test")
        self.run, self.words, self.now = storage.writable_folder(self.config.folder, "out"), Words(), 1000.0
        storage.write_bytes(self.run / "config.yaml", resolved_yaml(self.config).encode())

    def controller(self, **more):
        jobs = Jobs(self.run, Running("http://127.0.0.1:1", None, None), self.words)
        return Controller(self.config, jobs, event_log(self.run), True, "data", clock=lambda: self.now, **more)

    def events(self, what):
        return [line for line in storage.read_lines(self.run / "events.jsonl") if line["event"] == what]

    @property
    def attempts(self):
        return history(self.run, "data", History()).attempts


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def test_a_controller_that_comes_after_another_adopts_what_is_at_work(rig):
    rig.controller().reconcile()
    (name,) = rig.words.jobs
    assert rig.attempts[0].submission_id == name and [event["job"] for event in rig.events("submitted")] == [name]
    another = rig.controller()
    for _ in range(3):
        assert not another.reconcile().finished
    assert len(rig.attempts) == 1 and [event["job"] for event in rig.events("adopted")] == [name]


def test_an_attempt_that_was_booked_and_not_submitted_is_submitted(rig):
    rig.controller().reconcile()
    (name,) = rig.words.jobs
    rig.words.jobs.clear()  # as if the controller had been killed between the two
    rig.controller().reconcile()
    assert list(rig.words.jobs) == [name] and len(rig.attempts) == 1


def test_a_job_that_is_called_dead_is_left_alone_for_as_long_as_it_gives_signs_of_life(rig):
    one = rig.controller()
    one.reconcile()
    (name,) = rig.words.jobs
    rig.words.end(name, error_type="JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")
    for beat in range(10):
        storage.write_json(beat_path(rig.run, name), {"beat": beat})
        rig.now += 0.9 * BEAT_PATIENCE_S
        one.reconcile()
    assert len(rig.attempts) == 1
    rig.now += 1.1 * BEAT_PATIENCE_S  # and no beat
    one.reconcile()
    first, second = rig.attempts
    assert second.previous.kind == "infrastructure" and second.not_before > rig.now
    assert second.submission_id not in rig.words.jobs, "it waits for its time"
    rig.now = second.not_before
    one.reconcile()
    assert second.submission_id in rig.words.jobs and first.submission_id != second.submission_id


def test_an_error_that_would_be_met_again_ends_the_run_with_its_code(rig):
    one = rig.controller()
    one.reconcile()
    (name,) = rig.words.jobs
    storage.write_json(error_path(rig.run, name), {"exit_code": GATE, "message": "too many duplicates", "type": "QualityGateError"})
    rig.words.end(name, code=GATE, error_type="JOB_ENTRYPOINT_COMMAND_ERROR")
    with pytest.raises(RunError, match=r"too many duplicates\n.*control/logs") as told:
        one.reconcile()
    assert told.value.code == GATE
    assert [event["message"] for event in rig.events("failed")] == ["too many duplicates"]
    assert (rig.run / "control" / "logs" / f"{name}.log").read_text() == "its log\n"
    rig.now += 10
    rig.controller().reconcile()  # the same command again
    assert len(rig.attempts) == 2 and len(rig.words.jobs) == 2


def test_failures_are_counted_over_controllers(rig):
    told = None
    for number in range(1, ATTEMPTS["user"] + 1):
        rig.controller().reconcile()
        name = rig.attempts[-1].submission_id
        assert name.endswith(f"-a{number}")
        storage.write_json(error_path(rig.run, name), {"exit_code": 1, "message": "it broke", "type": "ValueError"})
        rig.words.end(name, code=1, error_type="JOB_ENTRYPOINT_COMMAND_ERROR")
        try:
            rig.controller().reconcile()
        except RunError as error:
            told = error
        rig.now += 10
    assert told is not None and told.code == FAILED and len(rig.attempts) == ATTEMPTS["user"]


def test_a_cluster_that_does_not_answer_is_waited_for_and_not_for_ever(rig, monkeypatch):
    one = rig.controller()
    rig.words.away = True
    assert not one.reconcile().finished
    rig.words.away = False
    one.reconcile()
    assert len(rig.words.jobs) == 1
    rig.words.away = True
    one.reconcile()
    monkeypatch.setattr(controller, "PATIENCE_S", -1.0)
    with pytest.raises(RunError, match="no answer for") as told:
        one.reconcile()
    assert told.value.code == RETRY
    with pytest.raises(RunError, match="cluster is gone"):
        rig.controller(exists=lambda: False).reconcile()


def test_of_two_commands_with_different_configurations_the_later_goes_on(rig):
    one = rig.controller()
    one.reconcile()
    elsewhere = rig.config.model_copy(update={"cluster": rig.config.cluster.model_copy(update={"address": "http://head:8265"})})
    storage.write_bytes(rig.run / "config.yaml", resolved_yaml(elsewhere).encode())
    one.reconcile()  # the same run, by another way to its cluster
    other = rig.config.model_copy(update={"seed": 1})
    storage.write_bytes(rig.run / "config.yaml", resolved_yaml(other).encode())
    with pytest.raises(GaveWay, match="another configuration"):
        one.reconcile()
    rig.config = other
    rig.controller().reconcile()
    assert len(rig.attempts) == 2, "its job makes something else"
    assert [job.status.value for job in rig.words.jobs.values()] == ["STOPPED", "RUNNING"]
