"""The process that a local cluster lives under: starts Ray's head, takes all of it down when asked to or when nobody is left to ask."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from headrace import credentials
from headrace.control.cluster import ELSEWHERE, MARK, Running, given_up, publish, withdraw
from headrace.observe.monitoring import link_targets, unlink_targets

LOOPBACK = "127.0.0.1"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(spec: dict[str, Any]) -> None:
    temp, control = Path(spec["temp"]), Path(spec["control"])
    stopped = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    port, dashboard, agent, metrics, client, *more = _free_ports(7)
    token = credentials.read_token(Path(spec["token"]), "token")
    if faults := credentials.token_faults(token):
        raise SystemExit("\n".join(faults))  # before anything listens
    others = {*ELSEWHERE, credentials.TOKEN, credentials.TOKEN_PATH}  # of a cluster that the user has besides
    environment = {name: value for name, value in os.environ.items() if name not in others} | _ray_environment(spec)
    environment |= {name: str(port) for name, port in zip(("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT"), more, strict=True)}
    command = [
        *[sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"],
        *[f"--node-ip-address={LOOPBACK}", f"--port={port}", f"--temp-dir={temp / 'ray'}"],
        *["--include-dashboard=true", f"--dashboard-host={LOOPBACK}", f"--dashboard-port={dashboard}"],
        # Ray's default ports belong to whichever cluster of the machine came first; without its agent, a cluster runs no job.
        *[f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}", f"--ray-client-server-port={client}"],
        *[f"--num-cpus={spec['cpus']}", f"--resources={json.dumps(spec['resources'])}", "--include-log-monitor=false"],
    ]
    head = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent)
    try:
        _wait_for_jobs_api(dashboard, token.text, head, lambda: stopped)
        if not stopped and head.poll() is None:
            link_targets(control, temp / "ray")
            publish(control, Running(f"http://{LOOPBACK}:{dashboard}", spec["token"], os.getpid(), str(temp)))
        while not stopped and head.poll() is None and not given_up(control, str(temp)):
            time.sleep(0.2)
    finally:
        unlink_targets(control, temp / "ray")
        withdraw(control, str(temp))
        _take_down(str(temp))
        shutil.rmtree(temp, ignore_errors=True)


def _ray_environment(spec: dict[str, Any]) -> dict[str, str]:
    return {
        MARK: spec["temp"],
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": spec["token"],
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray puts this machine's outer address in the place of --node-ip-address=127.0.0.1 and then listens on all interfaces
        # (ray/_private/services.py, resolve_ip_for_localhost), except where its clusters are of one machine only. So is this one.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # A node that vanishes without a word is noticed in seconds instead of minutes.
        "RAY_grpc_client_keepalive_time_ms": "5000",
        "RAY_grpc_client_keepalive_timeout_ms": "5000",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # Ray's own default of 15 would leave training hardly ahead of an evaluation at 19; its daemons still go first.
        "RAY_worker_niceness": "5",
        # Ranks and data workers are one thread each; the cores are shared by number of processes.
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM to Ray's head when the keeper is killed: nobody else would be left to end it (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind((LOOPBACK, 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for_jobs_api(port: int, token: str, head: subprocess.Popen[bytes], stopped: Any) -> None:
    """Return once an authenticated request for the jobs is answered: until then a submission would be refused."""
    while head.poll() is None and not stopped():
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
            connection.request("GET", "/api/jobs/", headers={"Authorization": f"Bearer {token}"})
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)


def _take_down(mark: str) -> None:
    """End whatever carries this cluster's mark in its environment: its own processes, no one else's.

    At once: jobs are over or were stopped in order before, and what Ray would put in order is in memory or in the folder that goes.
    """
    for _ in range(3):
        left = [process for process in psutil.process_iter() if process.pid != os.getpid() and _carries(process, mark)]
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=5)


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
