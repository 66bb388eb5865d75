"""The commands and the environment with which a node joins a cluster: the same for every provider."""

from __future__ import annotations

import json
from collections.abc import Mapping

TOKEN_FILE = "~/.ray/auth_token"  # on a node, and in its container
SPILL = "/mnt/spill"
PORT = 6379
LOOPBACK = "127.0.0.1"

KEEPALIVE = {
    # Without them the owner of a task does not notice for minutes that its node vanished without a word.
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}
AUTH = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": TOKEN_FILE}
NODE = {
    **KEEPALIVE,
    "RAY_JOB_STOP_WAIT_TIME_S": "600",  # between the signal to stop and the kill: the last checkpoint is written in it
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
HEAD = {**NODE, "RAY_JOB_START_TIMEOUT_SECONDS": "7200"}  # a job may wait for a node that is still being started

NOTICE = "headrace.cluster.notice"


def head_command(*flags: str) -> str:
    """Starts a head that runs no work of its own, with the dashboard on its loopback."""
    return _start(
        HEAD, "--head", f"--port={PORT}", "--num-cpus=0", f"--dashboard-host={LOOPBACK}", f"--object-spilling-directory={SPILL}", *flags
    )


def worker_command(*flags: str) -> str:
    """Starts a worker; Ray's launcher puts RAY_HEAD_IP in front."""
    return _start(NODE, f"--address=$RAY_HEAD_IP:{PORT}", f"--object-spilling-directory={SPILL}", *flags)


def notice_command(cloud: str) -> str:
    """Watches for the cloud's notice that it takes the machine back; goes on when the shell that started it ends."""
    watch = f"setsid python -m {NOTICE} {cloud} --address=$RAY_HEAD_IP:{PORT} < /dev/null > /tmp/headrace-notice.log 2>&1 &"
    return f"export {_assignments(AUTH | KEEPALIVE)}; {watch}"


def _start(environment: Mapping[str, str], *flags: str) -> str:
    return f"ulimit -n 65536; export {_assignments({**AUTH, **environment})}; ray start {' '.join(flags)}"


def _assignments(environment: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in environment.items())


def resources_flag(resources: Mapping[str, int]) -> str:
    """`--resources` of `ray start`, quoted for a shell."""
    return f"--resources='{json.dumps(resources)}'"
