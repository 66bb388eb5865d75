"""The local cluster: authenticated, found again, taken down alone."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

import psutil
import pytest

from headrace.control import cluster
from headrace.control.keeper import _carries


def status(address, token=None):
    url = urlparse(address)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    connection.request("GET", "/api/jobs/", headers={"Authorization": f"Bearer {token}"} if token else {})
    return connection.getresponse().status


def submit(running):
    """Status of a request to run a job; a cluster that has just come up refuses until its agent has registered."""
    url, token = urlparse(running.address), Path(running.token_path).read_text()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    connection.request("POST", "/api/jobs/", body=json.dumps({"entrypoint": "true"}), headers=headers)
    return connection.getresponse().status


def of_cluster(mark):
    return [process for process in psutil.process_iter() if _carries(process, mark)]


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


@pytest.fixture
def bystander():
    """A process that has nothing to do with the cluster."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_a_cluster_is_closed_found_again_and_taken_down_alone(tmp_path, bystander):
    control = tmp_path / "control"
    running = cluster.start_local(control, cores=1, workers=1)
    try:
        token_file = Path(running.token_path)
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(token_file.parent.stat().st_mode) == 0o700
        assert len(token_file.read_text()) >= 32
        assert urlparse(running.address).hostname == "127.0.0.1"
        assert status(running.address) == 401
        assert status(running.address, "0" * 64) == 403
        assert status(running.address, token_file.read_text()) == 200
        assert token_file.read_text() not in (control / "cluster.json").read_text()
        assert cluster.start_local(control, cores=1, workers=1) == running  # a driver that was killed finds it
        assert of_cluster(running.mark)
    finally:
        cluster.stop(control)
    assert until(lambda: not of_cluster(running.mark))
    assert cluster.find_running(control) is None
    assert not Path(running.mark).exists()
    assert bystander.poll() is None


def test_a_cluster_without_a_driver_goes_and_so_does_one_without_a_keeper(tmp_path):
    control = tmp_path / "control"
    running = cluster.start_local(control, cores=1, workers=1)
    long_ago = time.time() - cluster.GRACE_S - 60
    os.utime(control / "driver.beat", (long_ago, long_ago))
    assert until(lambda: cluster.find_running(control) is None), "the keeper did not notice that no driver is left"
    leaving, running = running, cluster.start_local(control, cores=1, workers=1)  # while the first may still be on its way down
    assert running.mark != leaving.mark
    assert until(lambda: not of_cluster(leaving.mark))
    os.kill(running.keeper, signal.SIGKILL)
    assert until(lambda: not of_cluster(running.mark)), "the cluster outlived its keeper"
    assert cluster.find_running(control) is None
    cluster.stop(control)
    assert not Path(running.mark).exists()


def test_two_clusters_of_one_machine_both_run_jobs(tmp_path):
    controls = [tmp_path / name for name in ("one", "two")]
    try:
        for running in [cluster.start_local(control, cores=1, workers=1) for control in controls]:
            assert until(lambda running=running: submit(running) == 200), "its agent did not start"
    finally:
        for control in controls:
            cluster.stop(control)


def test_a_recycled_process_number_is_no_keeper(tmp_path):
    control = tmp_path / "control"
    cluster.publish(control, cluster.Running("http://127.0.0.1:1", None, os.getpid(), "/tmp/headrace-not-us"))
    assert cluster.find_running(control) is None


def test_training_cannot_take_the_slot_of_evaluation():
    cpus, resources = cluster.pools(cores=2, workers=2)
    assert resources["evaluate"] == 1
    assert cpus >= resources["train"] + resources["data"] + resources["evaluate"]
