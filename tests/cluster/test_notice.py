"""Notices of the three clouds, asked of a server that speaks as their metadata services do; the drain of a real node."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headrace.cluster import notice

AT = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def metadata():
    """A metadata service on loopback: `answers` by method and path, a status or a body; what it was asked, with the headers."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            server.asked.append((self.command, self.path, dict(self.headers)))
            found = server.answers.get((self.command, self.path), 404)
            found = found(self.headers) if callable(found) else found
            self.send_response(found if isinstance(found, int) else 200)
            self.end_headers()
            self.wfile.write(b"" if isinstance(found, int) else found.encode())

        do_GET = do_PUT = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.asked = {}, []
    server.base = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_aws_is_asked_with_a_session_token(metadata):
    action = "/latest/meta-data/spot/instance-action"
    metadata.answers[("PUT", "/latest/api/token")] = lambda headers: "session" if headers["X-aws-ec2-metadata-token-ttl-seconds"] else 400
    assert notice.aws(metadata.base) is None  # 404: no notice
    assert metadata.asked[-1][2]["X-Aws-Ec2-Metadata-Token"] == "session"
    metadata.answers[("GET", action)] = json.dumps({"action": "terminate", "time": "2026-11-23T04:05:06Z"})
    assert notice.aws(metadata.base) == notice.Notice("AWS is to terminate this spot instance", AT.timestamp())


def test_google_says_true_or_false_to_who_names_its_flavor(metadata):
    def preempted(headers):
        return metadata.state if headers.get("Metadata-Flavor") == "Google" else 403

    metadata.answers[("GET", "/computeMetadata/v1/instance/preempted")] = preempted
    metadata.state = "FALSE"
    assert notice.gcp(metadata.base) is None
    metadata.state = "TRUE"
    found = notice.gcp(metadata.base)
    assert found.deadline == pytest.approx(time.time() + 30, abs=10)


def test_azure_lists_the_events_of_neighbours_too(metadata):
    def events(*found):
        listed = [{"EventType": kind, "Resources": [name], "NotBefore": at} for kind, name, at in found]
        metadata.answers[("GET", "/metadata/scheduledevents?api-version=2020-07-01")] = json.dumps(
            {"DocumentIncarnation": 1, "Events": listed}
        )

    metadata.answers[("GET", "/metadata/instance/compute/name?api-version=2021-02-01&format=text")] = "own"
    for none in ([], [("Preempt", "neighbour", "")], [("Freeze", "own", "Mon, 23 Nov 2026 04:00:00 GMT")]):
        events(*none)
        assert notice.azure(metadata.base) is None, none
    events(("Redeploy", "own", "Mon, 23 Nov 2026 04:30:00 GMT"), ("Preempt", "own", "Mon, 23 Nov 2026 04:05:06 GMT"))
    assert notice.azure(metadata.base) == notice.Notice("Azure: Preempt", AT.timestamp())
    events(("Preempt", "own", ""))  # it has begun
    assert notice.azure(metadata.base).deadline == pytest.approx(time.time() + 30, abs=10)


def test_the_watch_outlives_a_service_and_a_drain_that_fail(metadata, caplog):
    drained, looks = [], []

    def look():
        looks.append(len(looks))
        if len(looks) == 2:
            metadata.answers[("GET", "/computeMetadata/v1/instance/preempted")] = 503
        if len(looks) == 5:
            metadata.answers[("GET", "/computeMetadata/v1/instance/preempted")] = "TRUE"
        return notice.gcp(metadata.base)

    def drain(found):
        drained.append(found)
        if len(drained) < 3:
            raise RuntimeError("Ray is not up yet")

    found = notice.watch(look, drain, every_s=0)
    assert len(looks) == 7 and drained[-1] == found
    assert len([record for record in caplog.records if "asked again" in record.message]) == 1  # one stretch of failures, one line


def test_the_command_line_names_its_clouds():
    done = subprocess.run([sys.executable, "-m", "headrace.cluster.notice", "ibm", "--address=h:1"], capture_output=True, text=True)
    assert done.returncode == 2 and re.search(r"aws.*gcp.*azure.*now", done.stderr)


@pytest.mark.full  # tests/faults/test_nodes.py drains a node in every run of the suite
def test_a_node_is_drained_and_ends(tmp_path):
    """One real Ray node: told to drain it takes no more work, and ends of itself when it is empty."""
    temp = Path(tempfile.mkdtemp(prefix="hrn-", dir="/tmp"))
    (temp / "token").write_text(secrets.token_hex(32))
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    port, client, agent, metrics = (each.getsockname()[1] for each in sockets)
    for each in sockets:
        each.close()
    address = f"127.0.0.1:{port}"
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(temp / "token"), "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {name: value for name, value in os.environ.items() if name not in {"RAY_AUTH_TOKEN", "RAY_ADDRESS"}} | auth
    flags = ["--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=1", "--include-dashboard=false", "--include-log-monitor=false"]
    flags += [f"--temp-dir={temp / 'ray'}", "--object-store-memory=100000000", f"--ray-client-server-port={client}"]
    flags += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *flags]
    with (tmp_path / "ray.log").open("wb") as log:
        ray = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    look = f"from headrace.cluster.notice import nodes_here; print(len(nodes_here({address!r})[1]))"
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and ray.poll() is None:
            found = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True)
            if found.stdout.strip() == "1":
                break
        assert found.stdout.strip() == "1", (tmp_path / "ray.log").read_text() + found.stderr[-500:]
        now = [sys.executable, "-m", "headrace.cluster.notice", "now", f"--address={address}", "--seconds=60"]
        started = time.monotonic()
        done = subprocess.run(now, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - started < 60, "it waited for its whole time: the node did not end"
        assert subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True).stdout.strip() != "1"
    finally:
        ray.terminate()
        try:
            ray.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(ray.pid, signal.SIGKILL)
        shutil.rmtree(temp, ignore_errors=True)
