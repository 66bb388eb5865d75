"""A run watched from outside: what its cluster listens on, whom it answers, and where secrets of its environment are written.

One run serves all tests. It has secrets in its environment, as a user's shell does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
import pytest
import yaml

from headrace.config import ConfigError
from headrace.control import cluster
from headrace.control.cluster import is_loopback
from headrace.control.keeper import _carries
from headrace.doctor import Finding, local_cluster
from headrace.doctor.listeners import of_process

WRONG = "0" * 64
PATHS = ("/", "/api/jobs/", "/api/version", "/nodes", "/logs", "/api/cluster_status", "/api/job_agent/jobs/", "/metrics")
HEALTH = ("/api/gcs_healthz", "/api/healthz", "/api/local_raylet_healthz")

# What Ray 2.60 answers to who shows no token: the page of its dashboard (an empty frame: what it shows is asked for with the token), that
# it lives, and, on ports for Prometheus, figures.
OPEN = {
    ("dashboard", "/"),
    ("dashboard", "/api/gcs_healthz"),
    ("dashboard", "/api/healthz"),
    ("dashboard agent", "/api/healthz"),
    ("dashboard agent", "/api/local_raylet_healthz"),
}
FIGURES = {"autoscaler", "dashboard", "dashboard agent"}

# A harmless method of every gRPC service that Ray's processes have.
METHODS = (
    "InternalKVGcsService/InternalKVKeys",
    "JobInfoGcsService/GetAllJobInfo",
    "NodeManagerService/GetSystemConfig",
    "ObjectManagerService/FreeObjects",
    "CoreWorkerService/NumPendingTasks",
    "RayletDriver/ListNamedActors",
    "ReporterService/GetTraceback",
    "LogService/ListLogs",
)
TURNED_AWAY = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
NOT_THERE = {"UNIMPLEMENTED", "UNAVAILABLE"}
SERVED = {
    "gcs_server",
    "raylet",
    "Ray Client server",
    "job supervisor",
    "dashboard agent",
}  # roles whose gRPC is asked; a rank's ports are left alone


@dataclass
class Watched:
    """What was seen of a run's cluster while it was up, and what is left of the run."""

    run: Path
    secrets: dict[str, str]
    logs: Path  # Ray's files by a second name: they outlive the cluster
    listening: dict[str, set[str]] = field(default_factory=dict)  # hosts by role of the process
    answers: dict[tuple[str, str], set[int]] = field(default_factory=dict)  # by role and path: what no token and a wrong one were told
    figures: dict[str, str] = field(default_factory=dict)  # by role
    calls: dict[str, set[str]] = field(default_factory=dict)  # by role: codes of gRPC for no token and for a wrong one
    asked: set[tuple[str, int]] = field(default_factory=set)
    doctor: list[Finding] = field(default_factory=list)
    jobs: str = ""
    commands: set[str] = field(default_factory=set)
    output: str = ""
    code: int | None = None


def role(process: psutil.Process) -> str:
    """What a process is in the cluster."""
    command = " ".join(process.cmdline())
    known = {
        "dashboard/agent.py": "dashboard agent",
        "ray::DashboardAgent": "dashboard agent",
        "runtime_env/agent": "runtime environment agent",
        "ray::RuntimeEnvAgent": "runtime environment agent",
        "dashboard/dashboard.py": "dashboard",
        "ray-dashboard": "dashboard module",
        "monitor.py": "autoscaler",
        "ray.util.client.server": "Ray Client server",
        "ray::JobSupervisor": "job supervisor",
        "ray::": "worker",
        "default_worker.py": "worker",
        "headrace.control.keeper": "keeper",
        "ray.scripts.scripts": "ray start",
        "/jobs/": "job",
    }
    name = process.name()
    return name if name in {"gcs_server", "raylet"} else next((what for part, what in known.items() if part in command), name)


def ask_http(port: int, path: str, token: str | None) -> tuple[int, bytes]:
    """Status and body of a GET; status 0 where what answers speaks no HTTP/1.1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def ask_grpc(port: int, method: str, token: str | None) -> str:
    """The code that a call with an empty message ends with."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/ray.rpc.{method}")
        shown = [("client_id", "0" * 32), *([("authorization", f"Bearer {token}")] if token else [])]
        try:
            call(b"", timeout=3, metadata=shown)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def ask(watched: Watched, what: str, port: int) -> None:
    """Every path, or every method, without a token and with a wrong one."""
    watched.asked.add((what, port))
    status, body = ask_http(port, "/", None)
    if body.startswith(b"# HELP"):
        watched.figures[what] = body.decode()
    elif status:
        for path in (*PATHS, *HEALTH):
            watched.answers.setdefault((what, path), set()).update(ask_http(port, path, token)[0] for token in (None, WRONG))
    elif what in SERVED:
        codes = {ask_grpc(port, method, token) for method in METHODS for token in (None, WRONG)}
        watched.calls.setdefault(what, set()).update(codes - NOT_THERE)


def processes(running: cluster.Running) -> list[psutil.Process]:
    """Those of the cluster: the keeper's descendants, and whatever carries the mark."""
    assert running.keeper is not None
    below = psutil.Process(running.keeper).children(recursive=True)
    return [*below, *(process for process in psutil.process_iter() if process not in below and _carries(process, running.mark))]


def look(watched: Watched, running: cluster.Running, token: str) -> None:
    """Once around the cluster: new ports are asked, new files of Ray get a second name."""
    for process in processes(running):
        with contextlib.suppress(psutil.Error, OSError):
            what = role(process)
            watched.commands.add(" ".join(process.cmdline()))
            for each in of_process(process):
                watched.listening.setdefault(what, set()).add(each.host)
                if (what, each.port) not in watched.asked and what not in {"worker", "job"}:
                    ask(watched, what, each.port)
    for path in Path(running.mark).rglob("*"):
        kept = watched.logs / path.relative_to(running.mark)
        if path.is_file() and path.name != "token" and not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                os.link(path, kept)
    watched.doctor = watched.doctor or list(local_cluster(running))
    status, body = ask_http(int(running.address.rpartition(":")[2]), "/api/jobs/", token)
    watched.jobs = body.decode() if status == 200 else watched.jobs


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    draw = random.Random(7)
    texts = [" ".join(f"word{draw.randrange(500)}" for _ in range(60)) for _ in range(120)]
    (folder / "mill.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = {
        "out": str(folder / "run"),
        "sources": [{"name": "mill", "kind": "prose", "path": str(folder / "mill.jsonl"), "filters": []}],
        "split": {"validation": 0.1},
        "tokens": {"vocab_size": 384, "sequence_length": 32},
        "model": {"layers": 1, "hidden": 16, "heads": 2},
        "train": {"steps": 4, "batch": {"global": 4, "micro": 2}, "layout": {"data": 2}, "checkpoint": {"every": 4}},
        "evaluate": {"max_tokens": 500},
        "cluster": {"cpus": 2},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    names = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "WANDB_API_KEY", "MY_PASSWORD")
    planted = {name: f"canary-{secrets.token_hex(12)}" for name in names}
    kept = Path(tempfile.mkdtemp(prefix="hrw-", dir="/tmp"))  # a second name needs the same file system
    found = Watched(folder / "run", dict(planted), kept)
    command = [sys.executable, "-m", "headrace.cli", "run", str(folder / "run.yaml")]
    process = subprocess.Popen(command, env=os.environ | planted, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while process.poll() is None:
            running = cluster.find_running(folder / "run" / "control")
            if running:
                with contextlib.suppress(OSError, psutil.Error, ConfigError):  # it may go at any moment
                    token = found.secrets["the cluster's token"] = Path(running.token_path or "").read_text()
                    look(found, running, token)
            time.sleep(1)  # a look costs as much as the run does
        found.output, found.code = process.communicate()[0], process.returncode
        yield found
    finally:
        process.kill()
        cluster.stop(folder / "run" / "control")
        shutil.rmtree(kept)


def test_the_run_was_whole_and_its_cluster_was_seen(watched):
    assert watched.code == 0, watched.output
    assert {"gcs_server", "raylet", "dashboard", "dashboard agent", "worker", "job"} <= set(watched.listening)
    assert "train" in watched.jobs and "evaluate" in watched.jobs


def test_nothing_listens_beyond_this_machine(watched):
    beyond = {what: hosts for what, hosts in watched.listening.items() if not all(is_loopback(host) for host in hosts)}
    assert beyond == {}


def test_who_shows_no_token_or_a_wrong_one_is_turned_away(watched):
    assert watched.answers["dashboard", "/api/jobs/"] == {401, 403}
    let_in = {place for place, codes in watched.answers.items() if codes - {401, 403, 404}}
    assert let_in <= OPEN, {place: watched.answers[place] for place in let_in - OPEN}
    assert {what for what, _ in let_in} == {"dashboard", "dashboard agent"}
    assert set(watched.figures) <= FIGURES


def test_ray_s_own_protocol_asks_for_the_token(watched):
    assert set(watched.calls) == SERVED
    assert all(codes and codes <= TURNED_AWAY for codes in watched.calls.values()), watched.calls


def test_the_doctor_finds_it_closed(watched):
    checks = [finding.check for finding in watched.doctor]
    assert checks == ["token", "without a token", "with a wrong token", "with our token", "clock, cluster", "Ray, cluster"]
    assert all(finding.level == "ok" for finding in watched.doctor), watched.doctor


def holding(folder, values):
    """(what, where) of every file below a folder that holds one of the values."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            yield from ((name, str(path.relative_to(folder))) for name, value in values.items() if value.encode() in content)


def test_secrets_are_written_nowhere(watched):
    assert len(watched.secrets) == 5
    written = [path for path in watched.run.rglob("*") if path.is_file()]
    assert {"config.yaml", "events.jsonl", "report.html", "manifest.json"} <= {path.name for path in written}
    assert any(path.suffix == ".log" for path in written)
    assert list(holding(watched.run, watched.secrets)) == []
    logs = {path.name for path in watched.logs.rglob("*") if path.is_file()}
    assert {"raylet.out", "gcs_server.out", "dashboard_agent.log"} <= logs
    assert list(holding(watched.logs, watched.secrets)) == []
    told = {"the Jobs API": watched.jobs, "the output": watched.output, "command lines": "\n".join(watched.commands)}
    told["figures"] = "\n".join(watched.figures.values())
    assert [(name, place) for name, value in watched.secrets.items() for place, text in told.items() if value in text] == []
