"""Ports: whether this machine's processes reach each other, and which Ray clusters here listen beyond it."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import psutil

from headrace import credentials
from headrace.control.cluster import is_loopback
from headrace.doctor.finding import Finding, error, ok, warning

RAY = ("gcs_server", "raylet")  # names of the processes that a Ray node is known by
TIMEOUT_S = 5.0


class Listener(NamedTuple):
    """A TCP port that a process accepts connections on."""

    host: str
    port: int
    pid: int
    process: str


def of_process(process: psutil.Process) -> Iterator[Listener]:
    """What a process listens on; nothing where it may not be looked at."""
    try:
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                yield Listener(connection.laddr.ip, connection.laddr.port, process.pid, process.name())
    except psutil.Error:
        return


def loopback() -> Finding:
    """A connection from this machine to itself by address and by name, as every process of a cluster makes them."""
    for host in ("127.0.0.1", "localhost"):
        try:
            with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), TIMEOUT_S) as sent:
                server.settimeout(TIMEOUT_S)
                received, _ = server.accept()
                with received:
                    sent.sendall(b"?")
                    received.settimeout(TIMEOUT_S)
                    received.recv(1)
            socket.getaddrinfo(host, None, socket.AF_INET)
        except OSError as problem:
            return error(
                "ports", f"{host}: {problem}", "let processes of this machine reach each other on 127.0.0.1; see /etc/hosts for localhost."
            )
    return ok("ports", "a port of this machine is reached by address and by name")


def nodes(processes: Sequence[tuple[str, Mapping[str, str], Sequence[Listener]]] | None = None) -> Finding:
    """Ray nodes of this machine that listen beyond it.

    Args:
        processes: (name, environment, listeners) of Ray's processes; None = those that run here and may be looked at.
    """
    beyond: list[str] = []
    unprotected: list[str] = []
    for name, environment, listening in _of_ray() if processes is None else processes:
        ports = sorted({each.port for each in listening if not is_loopback(each.host)})
        if ports:
            beyond.append(f"{name} on {', '.join(map(str, ports))}")
            if environment.get(credentials.MODE, "").lower() != "token":
                unprotected.append(beyond[-1])
    if unprotected:
        return error(
            "Ray on this machine",
            f"listens beyond it without a token: {'; '.join(unprotected)}",
            "stop it (`ray stop`); start it again with RAY_AUTH_MODE=token and --node-ip-address=127.0.0.1, or behind a firewall.",
        )
    if beyond:
        return warning(
            "Ray on this machine", f"listens beyond it, with a token: {'; '.join(beyond)}", "see that a firewall keeps others out."
        )
    return ok("Ray on this machine", "nothing of it listens beyond this machine")


def _of_ray() -> Iterator[tuple[str, Mapping[str, str], Sequence[Listener]]]:
    for process in psutil.process_iter():
        try:
            if process.name() in RAY:
                yield process.name(), process.environ(), list(of_process(process))
        except psutil.Error:
            continue
