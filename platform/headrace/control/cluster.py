"""A local Ray cluster of a run's own: loopback, with a token, found again after a crash, and shut down alone.

The cluster lives under a keeper process (`headrace.control.keeper`), not under the driver: a driver that is killed leaves its jobs at
work, and the same command started again adopts them. When no driver has been heard of for `GRACE_S`, the keeper takes the cluster down.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import logging
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from headrace import credentials, storage
from headrace.artifact import StageError
from headrace.config import ConfigError

log = logging.getLogger("headrace")

GRACE_S = 90.0  # a driver that was killed may be started again within this time and finds its cluster
BEAT_S = 2.0
START_TIMEOUT_S = 180.0
PREFIX = "headrace-"
MARK = "HEADRACE_CLUSTER"  # in the environment of every process that descends from the keeper
ELSEWHERE = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")  # Ray's clients follow these whatever address they are given


@dataclass(frozen=True)
class Running:
    """A cluster that answers: the dashboard's address and how to show that one may use it."""

    address: str
    token_path: str | None
    keeper: int | None  # process id; None for a cluster that is not ours to stop
    mark: str = ""

    def environment(self) -> dict[str, str]:
        """Variables with which Ray's clients reach it; without a path of its own, the token is where `find_token` looks."""
        if self.token_path:
            return {credentials.MODE: "token", credentials.TOKEN_PATH: self.token_path}
        return {credentials.MODE: "token"} if credentials.find_token() else {}

    def use(self) -> None:
        """Have Ray's clients in this process talk to this cluster and show its token, and no other of either."""
        for name in (*ELSEWHERE, *([credentials.TOKEN] if self.token_path else [])):
            os.environ.pop(name, None)
        os.environ.update(self.environment())


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine and nothing beyond it reaches what is bound there; a name other than localhost may be anywhere."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def remote(address: str, field: str = "cluster.address") -> Running:
    """A cluster that is there already, checked before anything is sent to it.

    Raises:
        ConfigError: the address is no plain http(s) URL of a dashboard; it is beyond this machine and there is no token for it; or the
            token can be guessed or read by others.
    """
    try:
        url = urlsplit(address)
        plain = url.scheme in {"http", "https"} and url.hostname and url.port is not None and url.path in {"", "/"}
    except ValueError:  # a port that is no number
        plain = False
    if not plain or "@" in address or "?" in address:  # not shown: it may hold a password
        raise ConfigError(f"{field}: not the address of a Ray dashboard; write http://HOST:PORT, as `ray start --head` prints it.")
    token = credentials.find_token()
    if token is None and not is_loopback(url.hostname):
        raise ConfigError(
            f"{field} = {address!r}: beyond this machine, and there is no token: whoever reaches a Ray cluster without one runs code "
            f"there. Start it with RAY_AUTH_MODE=token, and name the file of its token here: {credentials.TOKEN_PATH}=FILE (mode 0600)."
        )
    # Ray itself writes ~/.ray/auth_token for all to read; it need not be mended to reach a cluster of this machine that has no token.
    asked_for = token is not None and (token.path != credentials.DEFAULT_TOKEN.expanduser() or not is_loopback(url.hostname))
    if token is not None and asked_for and (faults := credentials.token_faults(token)):
        raise ConfigError("\n".join(f"{field} = {address!r}: {fault}" for fault in faults))
    return Running(address, str(token.path) if token and token.path else None, None)


def pools(cores: int, workers: int) -> tuple[int, dict[str, int]]:
    """Logical CPUs and resources of a local cluster.

    More CPUs than cores are declared, in pools that cannot take each other's: two training workers hold two cores for hours, and an
    evaluation (niced) must still find a slot.
    """
    resources = {"data": cores, "train": max(workers, cores), "evaluate": 1}
    return cores + resources["train"] + resources["evaluate"] + 1, resources


def start_local(control: Path, cores: int, workers: int) -> Running:
    """The run's local cluster: the one that still runs from an earlier driver, else a new one.

    Raises:
        StageError: Ray does not come up, with the end of its log.
    """
    with record_lock(control):
        beat(control)
        found = find_running(control)
    if found:
        log.info("cluster: still running from before, at %s", found.address)
        return found
    _forget(_record(control))
    cpus, resources = pools(cores, workers)
    temp = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp" if Path("/tmp").is_dir() else None))
    temp.chmod(0o700)  # Ray opens its own folder, below this one, to everybody
    token = temp / "token"
    descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, secrets.token_hex(32).encode())
    os.close(descriptor)
    spec = {"temp": str(temp), "token": str(token), "cpus": cpus, "resources": resources, "control": str(control)}
    with (control / "cluster.log").open("ab") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "headrace.control.keeper", json.dumps(spec)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C for the driver is not one for the cluster: jobs are stopped in order
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        found = find_running(control)
        if found:
            log.info("cluster: local, at %s, %d logical CPUs, pools %s", found.address, cpus, resources)
            return found
        if keeper.poll() is not None:
            break
        time.sleep(0.2)
    keeper.terminate()
    tail = (control / "cluster.log").read_text(errors="replace").strip().splitlines()[-8:]
    raise StageError(f"the local Ray cluster did not start; the end of {control / 'cluster.log'}:\n  " + "\n  ".join(tail))


def find_running(control: Path) -> Running | None:
    """The cluster that this run's record names, if its keeper lives."""
    try:
        running = Running(**storage.read_json(_record(control)))
    except (FileNotFoundError, TypeError, ValueError):
        return None
    if running.keeper is None or not _is_our_own(running) or not _is_keeper(running.keeper, running.mark):
        return None
    return running


def _is_our_own(running: Running) -> bool:
    """Whether a record can be of a cluster that this user's keeper started here.

    A run's folder may come from elsewhere. Its record must not have a token sent to a stranger, nor a folder deleted.
    """
    mark = Path(running.mark)
    try:
        of_us = mark.lstat()
    except (OSError, ValueError):
        return False
    return (
        mark.name.startswith(PREFIX)
        and mark.parent in {Path("/tmp"), Path(tempfile.gettempdir())}
        and stat.S_ISDIR(of_us.st_mode)
        and of_us.st_uid == os.getuid()
        and running.token_path == str(mark / "token")
        and is_loopback(urlsplit(running.address).hostname)
    )


def _forget(record: Path) -> None:
    """Drop the record of a cluster whose keeper is gone, and its temporary folder, which a killed keeper left."""
    with contextlib.suppress(FileNotFoundError, TypeError, ValueError):
        running = Running(**storage.read_json(record))
        if _is_our_own(running):
            shutil.rmtree(running.mark, ignore_errors=True)
    record.unlink(missing_ok=True)


def _record(control: Path) -> Path:
    return storage.machine(control) / "cluster.json"  # of no use to another machine, whose processes it does not name


def publish(control: Path, running: Running) -> None:
    storage.write_json(_record(control), asdict(running))


def withdraw(control: Path, mark: str) -> None:
    """Take back the record of the cluster of that mark: nobody is to find what is on its way down."""
    with contextlib.suppress(FileNotFoundError, TypeError, ValueError):
        if Running(**storage.read_json(_record(control))).mark == mark:
            _record(control).unlink(missing_ok=True)


@contextlib.contextmanager
def record_lock(control: Path) -> Iterator[None]:
    """Held while a driver announces itself and looks for a cluster, and while a keeper decides that no driver is left."""
    control.mkdir(parents=True, exist_ok=True)
    with (control / "cluster.lock").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def given_up(control: Path, mark: str) -> bool:
    """Whether no driver has been heard of for `GRACE_S`; the record of the cluster of that mark is then withdrawn."""
    if not control.is_dir():
        return True  # the run was deleted
    with record_lock(control):
        try:
            heard = time.time() - (control / "driver.beat").stat().st_mtime < GRACE_S
        except FileNotFoundError:
            heard = False
        if not heard:
            withdraw(control, mark)
        return not heard


def stop(control: Path) -> None:
    """Shut down the run's local cluster, and nothing else; returns when it is gone."""
    running = find_running(control)
    if running and running.keeper:
        os.kill(running.keeper, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and _is_keeper(running.keeper, running.mark):
            time.sleep(0.1)
    _forget(_record(control))


def _is_keeper(pid: int, mark: str) -> bool:
    """Whether the process is our keeper and not another that was given its number."""
    try:
        process = psutil.Process(pid)
        command = process.cmdline()
        known = "headrace.control.keeper" in command and any(mark in argument for argument in command)
        return known and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def beat(control: Path) -> None:
    """Tell the keeper that a driver lives."""
    control.mkdir(parents=True, exist_ok=True)
    (control / "driver.beat").touch()


class Heartbeat:
    """Beats from a thread for as long as the driver is at work."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="headrace-heartbeat")

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_S):
            beat(self._control)
