"""What is asked of Ray's Jobs API, and what is made of its answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.exceptions import AuthenticationError

from headrace import fence
from headrace.artifact import StageError
from headrace.config import ConfigError
from headrace.control.cluster import Running
from headrace.control.jobs import Job, Jobs, Unreachable

JOB = Job("evaluate-step-00000010-fast", "evaluate_checkpoint.py", ("/the run", "step-00000010", "fast"), {"evaluate": 1}, nice=19)


class Answers:
    """Ray's Jobs API, as far as one test needs it."""

    def __init__(self, refusal=None, jobs=()):
        self.refusal, self.jobs, self.requests = refusal, list(jobs), []

    def session(self):
        return "session_1"

    def list_jobs(self):
        return self.jobs

    def submit_job(self, **request):
        self.requests.append(request)
        if self.refusal:
            raise self.refusal
        return request["submission_id"]

    def get_job_logs(self, submission_id):
        if self.refusal:
            raise self.refusal
        return f"said by {submission_id}\n"


def jobs(run, answers):
    return Jobs(run, Running("http://127.0.0.1:1", None, None), answers)


def details(submission_id, status="RUNNING", **about):
    values = {"driver_exit_code": None, "message": None, "error_type": None, "metadata": None, **about}
    return SimpleNamespace(submission_id=submission_id, status=SimpleNamespace(value=status), **values)


def test_a_job_knows_which_attempt_of_which_run_it_is(tmp_path, monkeypatch):
    answers = Answers()
    ours = jobs(tmp_path, answers)
    assert ours.submit(JOB, 3, "t")
    (request,) = answers.requests
    assert request["submission_id"] == ours.submission_id(JOB.name, 3)
    assert request["submission_id"].endswith("-evaluate-step-00000010-fast-a3")
    assert request["metadata"] == {
        "run": str(tmp_path), "job": JOB.name, "attempt": "3", "spec_sha256": JOB.spec_sha256, "token": "t"
    }  # fmt: skip
    assert "'/the run'" in request["entrypoint"], "quoted for the shell"
    for name, value in request["runtime_env"]["env_vars"].items():
        monkeypatch.setenv(name, value)
    assert fence.identity() == fence.Identity(tmp_path, JOB.name, 3)


def test_a_name_that_is_taken_is_no_error(tmp_path):
    text = "Request failed with status code 500: Traceback ...\nValueError: Job with submission_id x already exists. Please use\n."
    assert not jobs(tmp_path, Answers(RuntimeError(text))).submit(JOB, 1)


@pytest.mark.parametrize(
    "refusal, error, told",
    [
        (RuntimeError("Request failed with status code 400: no such resource"), StageError, "no such resource"),
        (RuntimeError("Request failed with status code 503: busy"), Unreachable, "503"),
        (TimeoutError("read timed out"), Unreachable, "timed out"),
        (AuthenticationError("who are you"), ConfigError, "RAY_AUTH_TOKEN_PATH"),
    ],
)
def test_refusals_are_told_apart(tmp_path, refusal, error, told):
    with pytest.raises(error, match=told):
        jobs(tmp_path, Answers(refusal)).submit(JOB, 1)


def test_only_the_run_s_own_jobs_are_listed(tmp_path):
    names = jobs(tmp_path, Answers())
    mine, other = names.submission_id("train", 2), jobs(tmp_path / "other", Answers()).submission_id("train", 1)
    found = [details(mine, "FAILED", driver_exit_code=137, metadata={"token": "t"}), details(other), details(None)]
    listing = jobs(tmp_path, Answers(jobs=found)).listing()
    assert listing.cluster == "session_1" and list(listing.states) == [mine]
    state = listing.states[mine]
    assert (state.job, state.attempt, state.exit_code, state.token, state.active) == ("train", 2, 137, "t", False)


def test_what_a_job_makes_is_part_of_what_it_is_and_how_far_it_came_is_not():
    assert Job("train", "t.py", ("r",), {}, goal="a").spec_sha256 != Job("train", "t.py", ("r",), {}, goal="b").spec_sha256
    assert Job("train", "t.py", ("r",), {}, progress=1).spec_sha256 == Job("train", "t.py", ("r",), {}, nice=3).spec_sha256


def test_a_log_that_was_saved_is_not_lost_with_its_cluster(tmp_path):
    path = jobs(tmp_path, Answers()).save_log("j")
    assert path.read_text() == "said by j\n"
    away = jobs(tmp_path, Answers(ConnectionError("gone")))
    away.save_log("j")
    assert path.read_text() == "said by j\n"
    assert "could not be fetched: gone" in away.save_log("never").read_text()
