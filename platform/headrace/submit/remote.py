"""The Jobs API of a cluster over HTTP: what may be asked of it, how it is asked who we are, and what its refusals mean.

Requests go straight to the address that was given: no proxy, no redirect and no variable of the environment (Ray's own client lets
RAY_ADDRESS overrule its argument) can lead the token elsewhere.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from headrace import credentials
from headrace.config import ConfigError
from headrace.control import cluster
from headrace.control.exits import RETRY, RunError

TIMEOUT_S = 30.0
NODES_S = 30.0  # until a dashboard knows its nodes
TOKEN_SOURCES = "RAY_AUTH_TOKEN_PATH=FILE, RAY_AUTH_TOKEN=TOKEN or ~/.ray/auth_token"


@dataclass(frozen=True)
class RemoteJob:
    """A submission as the cluster knows it."""

    submission_id: str
    status: str  # PENDING | RUNNING | SUCCEEDED | FAILED | STOPPED
    message: str  # why it waits, or how it ended
    exit_code: int | None
    metadata: dict[str, str]
    started: float | None  # seconds since 1970
    ended: float | None

    @property
    def active(self) -> bool:
        return self.status in {"PENDING", "RUNNING"}

    @property
    def code(self) -> int:
        """Its end as an exit code of ours: 0 done, 130 stopped, else its own or 1."""
        return {"SUCCEEDED": 0, "STOPPED": 130}.get(self.status, self.exit_code or 1)


class RefusedRequest(Exception):
    """An answer that is not 200, for a caller that can do something about it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Remote:
    """A cluster's dashboard; the token is shown to it and to nobody else."""

    address: str  # http(s)://HOST:PORT
    token: str | None = field(default=None, repr=False)

    @property
    def loopback(self) -> bool:
        return cluster.is_loopback(urlsplit(self.address).hostname)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of a 200.

        Raises:
            RefusedRequest: the request itself was refused (400, 404, 500).
            ConfigError: the cluster wants a token, or another one; or there is no Ray dashboard at that address.
            RunError: nobody answers.
        """
        status, content = exchange(self.address, method, path, body, self.headers)
        if status == 401:
            raise ConfigError(f"{self.address}: asks for a token (401), and none was found here; name it with {TOKEN_SOURCES}.")
        if status == 403:
            raise ConfigError(f"{self.address}: the token of this machine is not that of the cluster (403); set {TOKEN_SOURCES}.")
        if status != 200:
            raise RefusedRequest(status, content.decode(errors="replace").strip())
        return content

    def ask(self, method: str, path: str, value: Any = None) -> Any:
        """`send` in JSON both ways, where no refusal is expected."""
        try:
            content = self.send(method, path, None if value is None else json.dumps(value).encode())
        except RefusedRequest as refused:
            raise self.sentence(refused, path) from None
        try:
            return json.loads(content)
        except ValueError:
            raise ConfigError(f"{self.address}: what answers there is no Ray dashboard; give its address, http://HOST:8265.") from None

    def sentence(self, refused: RefusedRequest, what: str) -> Exception:
        """A refusal as an error for people."""
        last = (refused.text.splitlines() or ["no reason given"])[-1].strip()
        if refused.status == 404:
            return ConfigError(f"{self.address}: {what}: not known there (404); is it the address of a Ray dashboard, http://HOST:8265?")
        if refused.status >= 500:
            return RunError(f"{self.address}: the cluster could not do it ({refused.status}): {last}; try again.", RETRY)
        return ConfigError(f"{self.address}: the request was refused ({refused.status}): {last}")

    def jobs(self) -> list[RemoteJob]:
        """Every submission that the cluster remembers, the oldest first."""
        found = [_job(values) for values in self.ask("GET", "/api/jobs/") if values.get("submission_id")]
        return sorted(found, key=lambda job: (job.started or 0.0, job.submission_id))

    def job(self, submission_id: str) -> RemoteJob | None:
        """One submission; None where the cluster does not know it."""
        path = f"/api/jobs/{quote(submission_id, safe='')}"
        try:
            return _job(json.loads(self.send("GET", path)))
        except RefusedRequest as refused:
            if refused.status == 404:
                return None
            raise self.sentence(refused, submission_id) from None

    def known(self, submission_id: str) -> RemoteJob:
        """`job`, or a ConfigError."""
        found = self.job(submission_id)
        if found is None:
            raise ConfigError(f"{self.address}: no job {submission_id!r} (404); `headrace runs --address {self.address}` lists them.")
        return found

    def log(self, submission_id: str) -> str:
        """All that a job has written so far; the node that holds the file must be alive."""
        return str(self.ask("GET", f"/api/jobs/{quote(submission_id, safe='')}/logs")["logs"])

    def stop(self, submission_id: str) -> None:
        """Ask a job to end; returns at once."""
        self.ask("POST", f"/api/jobs/{quote(submission_id, safe='')}/stop")

    def hosts(self) -> set[str]:
        """Host names of the cluster's nodes; a dashboard that has just come up knows none for a few seconds."""
        deadline = time.monotonic() + NODES_S
        while not (found := set(self.ask("GET", "/nodes?view=hostnamelist")["data"]["hostNameList"])) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    @property
    def is_this_machine(self) -> bool:
        """Whether the cluster runs here: a loopback address alone may be the near end of a tunnel."""
        return self.loopback and self.hosts() == {socket.gethostname()}


def exchange(address: str, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    """One request; status and body of its answer, whatever they are.

    Raises:
        RunError: nobody answers, with the exit code of what is worth trying again.
    """
    url = urlsplit(address)
    assert url.hostname is not None
    if url.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            url.hostname, url.port, timeout=TIMEOUT_S, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT_S)
    try:
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=headers | ({"Content-Type": "application/json"} if body else {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RunError(
            f"{address}: nobody answers there ({why}); is the cluster up, and is this the address of its dashboard?", RETRY
        ) from None


def connect(address: str) -> Remote:
    """The cluster at an address, once it has answered and shown that it is closed to strangers.

    Args:
        address: of the dashboard, http://HOST:PORT or https://HOST:PORT.

    Raises:
        ConfigError: no such address; the cluster asks for a token that is not here; or it is open to everybody.
        RunError: nobody answers.
    """
    running = cluster.remote(address, "--address")
    token = credentials.find_token()
    remote = Remote(running.address.rstrip("/"), token.text if token else None)
    # Before anything is shown: a stranger's request, without the token.
    status, _ = exchange(remote.address, "GET", "/api/jobs/", None, {})
    if status == 200 and not remote.loopback:
        raise ConfigError(
            f"{remote.address}: answers requests without a token, so whoever reaches it can run what he likes on it (CVE-2023-48022). "
            f"Start the cluster with RAY_AUTH_MODE=token; `headrace cluster render` writes templates that do."
        )
    remote.ask("GET", "/api/version")
    return remote


def own(running: cluster.Running) -> Remote:
    """The local cluster of a run, by its own token."""
    assert running.token_path is not None
    return Remote(running.address, credentials.read_token(Path(running.token_path), "token").text)


def _job(values: dict[str, Any]) -> RemoteJob:
    def seconds(name: str) -> float | None:
        return values[name] / 1000 if values.get(name) else None

    return RemoteJob(
        submission_id=str(values.get("submission_id") or ""),
        status=str(values["status"]),
        message=str(values.get("message") or "").strip(),
        exit_code=values.get("driver_exit_code"),
        metadata=dict(values.get("metadata") or {}),
        started=seconds("start_time"),
        ended=seconds("end_time"),
    )
