"""The Jobs API over HTTP: every refusal a sentence, and the token shown to nobody but the cluster."""

from __future__ import annotations

import json
import socket

import pytest

from headrace.config import ConfigError
from headrace.control.exits import RETRY, RunError
from headrace.submit import remote

TOKEN = "0123456789abcdef" * 4
VERSION = (200, json.dumps({"version": "4", "ray_version": "2.60.0"}).encode())


def job(number=1, status="RUNNING", **more):
    values = {"type": "SUBMISSION", "submission_id": f"job-{number}", "status": status, "message": "at it", "start_time": number * 1000}
    return {**values, "metadata": {"run": "/r"}, "driver_exit_code": None, "end_time": None, **more}


@pytest.fixture
def opened(dashboard):
    """A dashboard with a token, and the cluster behind it."""
    dashboard.token = TOKEN
    dashboard.answers["GET", "/api/version"] = VERSION
    return dashboard, remote.Remote(dashboard.address, TOKEN)


def test_jobs_come_oldest_first_without_what_is_no_submission(opened):
    dashboard, cluster = opened
    listed = [job(2), job(1, "FAILED", driver_exit_code=3), {"type": "DRIVER", "submission_id": None, "status": "RUNNING"}]
    dashboard.answers["GET", "/api/jobs/"] = (200, json.dumps(listed).encode())
    found = cluster.jobs()
    assert [each.submission_id for each in found] == ["job-1", "job-2"]
    assert (found[0].active, found[0].code, found[1].active, found[1].started) == (False, 3, True, 2.0)


@pytest.mark.parametrize("status, exit_code, code", [("SUCCEEDED", 0, 0), ("STOPPED", None, 130), ("FAILED", 75, 75), ("FAILED", None, 1)])
def test_an_end_has_a_code(opened, status, exit_code, code):
    dashboard, cluster = opened
    dashboard.answers["GET", "/api/jobs/job-1"] = (200, json.dumps(job(status=status, driver_exit_code=exit_code)).encode())
    assert cluster.job("job-1").code == code


def test_nobody_answering_is_worth_another_try(no_token):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RunError, match=rf"{address}: nobody answers there \(Connection refused\)") as told:
            remote.connect(address)
    assert told.value.code == RETRY


def test_a_cluster_that_asks_for_a_token_is_told_from_one_that_asks_for_another(opened, monkeypatch):
    dashboard, _ = opened
    with pytest.raises(ConfigError, match=r"asks for a token \(401\), and none was found here; name it with RAY_AUTH_TOKEN_PATH"):
        remote.connect(dashboard.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    with pytest.raises(ConfigError, match=r"is not that of the cluster \(403\)") as told:
        remote.connect(dashboard.address)
    assert "f" * 64 not in str(told.value)


def test_the_token_is_found_and_shown_only_after_a_look_without_it(opened, tmp_path):
    dashboard, _ = opened
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    cluster = remote.connect(dashboard.address + "/")
    assert cluster.address == dashboard.address
    assert TOKEN not in repr(cluster)
    assert [(path, shown) for _, path, shown, _ in dashboard.asked] == [("/api/jobs/", None), ("/api/version", f"Bearer {TOKEN}")]


def test_what_is_open_to_everybody_is_refused_beyond_this_machine_and_told_nothing(dashboard, monkeypatch):
    dashboard.answers["GET", "/api/version"] = VERSION
    dashboard.answers["GET", "/api/jobs/"] = (200, b"[]")
    assert remote.connect(dashboard.address).jobs() == []  # on loopback
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    dashboard.asked.clear()
    with pytest.raises(ConfigError, match=r"answers requests without a token, so whoever reaches it can run"):
        remote.connect(f"http://0.0.0.0:{dashboard.port}")  # the same server, by an address that is not a loopback one
    assert [shown for _, _, shown, _ in dashboard.asked] == [None]


@pytest.mark.parametrize("variable", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "HTTP_PROXY", "http_proxy"])
def test_the_environment_leads_nowhere_else(opened, monkeypatch, variable):
    dashboard, _ = opened
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    remote.connect(dashboard.address)
    assert dashboard.asked[-1][1] == "/api/version"


def test_a_job_that_is_not_there(opened):
    dashboard, cluster = opened
    assert cluster.job("a/b") is None
    assert dashboard.asked[-1][1] == "/api/jobs/a%2Fb"
    with pytest.raises(ConfigError, match=r"no job 'a/b' \(404\); `headrace runs --address"):
        cluster.known("a/b")


@pytest.mark.parametrize(
    "status, body, error, sentence",
    [
        (404, b"not found", ConfigError, r"not known there \(404\); is it the address of a Ray dashboard"),
        (
            500,
            b"Traceback\n  File\nRuntimeError: GCS is gone\n",
            RunError,
            r"could not do it \(500\): RuntimeError: GCS is gone; try again",
        ),
        (400, b"Traceback\nValueError: invalid label\n", ConfigError, r"refused \(400\): ValueError: invalid label"),
        (200, b"<html>hello</html>", ConfigError, r"what answers there is no Ray dashboard"),
    ],
)
def test_every_other_answer_is_a_sentence(opened, status, body, error, sentence):
    dashboard, cluster = opened
    dashboard.answers["GET", "/api/jobs/"] = (status, body)
    with pytest.raises(error, match=sentence) as told:
        cluster.jobs()
    assert "\n" not in str(told.value)
