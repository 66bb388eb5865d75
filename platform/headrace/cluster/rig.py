"""A Ray cluster of several nodes on this machine, each with a network and an address of its own: nodes that can be cut off and killed.

The nodes live in namespaces that an unprivileged user may make (user, network, process, mount): a bridge, a network namespace and a
pair of interfaces a node. All share the machine's files, as nodes share storage. The first process of the process namespace takes
everything down with it, and Ray's temporary folders lie in memory that belongs to the mount namespace: nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from headrace import credentials
from headrace.cluster import commands, notice
from headrace.config import ConfigError
from headrace.control.cluster import ELSEWHERE, pools

HOME = Path("/run/headrace")  # below a /run of the rig's own; socket paths must be short
RECORD = HOME / "rig.json"
BRIDGE = "10.77.0.254"  # where commands are: outside all nodes, with a way to each
HEAD = "n1"
DASHBOARD = 8265
STORE_BYTES = 128 << 20  # of the object store of a node
START_TIMEOUT_S = 180.0
DRAIN_S = 120.0  # a spot market's notice
NAMESPACES = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
TOOLS = ("unshare", "nsenter", "ip", "mount")
ENTER = ("--user", "--net", "--pid", "--mount", "--preserve-credentials")
RAY = {
    **commands.HEAD,
    # A node is given up after about ten seconds without an answer; less, and a busy machine loses nodes that are well.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


@dataclass(frozen=True)
class Rig:
    """A rig that answers.

    `first` is the process in whose namespaces it lives, as it is seen from outside; None for who is inside.
    """

    nodes: tuple[str, ...]  # n1 is the head, without CPUs; n2 and so on work
    cpus: int  # cores that a worker stands for
    address: str  # of the dashboard
    token_path: str
    first: int | None = None

    def environment(self) -> dict[str, str]:
        """Variables of a command that works on the rig."""
        return {
            "HEADRACE_RIG": str(RECORD),
            "HEADRACE_RIG_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": self.token_path,
            **commands.KEEPALIVE,  # a driver that lacks it waits in vain for a node that it owns work on
        }

    def inside(self, command: Sequence[str], node: str | None = None) -> list[str]:
        """The command, to be run on a node, or outside all nodes with a way to each."""
        there = [] if node is None else ["nsenter", f"--net=/run/netns/{self._named(node)}"]
        if self.first is None:
            return [*there, *command]
        return ["nsenter", f"--target={self.first}", *ENTER, f"--wd={Path.cwd()}", *there, *command]

    def popen(self, command: Sequence[str], node: str | None = None, **options: Any) -> subprocess.Popen[Any]:
        """Start a command in the rig, with the rig's environment."""
        own = {name: value for name, value in os.environ.items() if name not in {*ELSEWHERE, credentials.TOKEN}}  # of another cluster
        environment = {**own, **self.environment(), **options.pop("env", {})}
        return subprocess.Popen(self.inside(command, node), env=environment, **options)

    def cut(self, node: str) -> None:
        """Take the node's cable out: nothing reaches it, nobody is told."""
        self._link(node, "down")

    def heal(self, node: str) -> None:
        """Put the cable back. Ray may have given the node up meanwhile; then its raylet ends, and `start` brings the node back."""
        self._link(node, "up")

    def kill(self, node: str) -> None:
        """End everything on the node at once, as when its power fails."""
        while processes := self.processes(node):  # some may have been starting others
            self.popen(["kill", "-9", *map(str, processes)], stderr=subprocess.DEVNULL).wait()

    def drain(self, node: str) -> None:
        """Give notice that the node goes: no new work for it, and the training on it saves its state; returns when it is empty and gone."""
        to = [f"--address={address(HEAD)}:{commands.PORT}", f"--seconds={DRAIN_S}"]
        self.popen([sys.executable, "-m", notice.__name__, "now", *to], node).wait()

    def start(self, *nodes: str) -> None:
        """Bring nodes up (again); returns when they have joined.

        Raises:
            ConfigError: one does not come up, with what Ray says.
        """
        starts = [(node, self._start(node)) for node in nodes]
        for node, process in starts:
            said, _ = process.communicate(timeout=START_TIMEOUT_S)
            if process.returncode:
                raise ConfigError(f"node {node} does not start:\n{said}")

    def processes(self, node: str) -> list[int]:
        """Process ids on a node, as the rig's process namespace counts them."""
        return [int(pid) for pid in self._output("ip", "netns", "pids", self._named(node)).split()]

    def _start(self, node: str) -> subprocess.Popen[str]:
        own, head = address(node), address(HEAD)
        cpus, resources = (0, {}) if node == HEAD else pools(self.cpus, self.cpus)
        role = [f"--address={head}:{commands.PORT}"]
        if node == HEAD:
            role = [
                "--head",
                f"--port={commands.PORT}",
                "--include-dashboard=true",
                f"--dashboard-host={head}",
                f"--dashboard-port={DASHBOARD}",
            ]
        command = [
            *[sys.executable, "-m", "ray.scripts.scripts", "start", *role],
            *[f"--node-ip-address={own}", f"--temp-dir={HOME / node}", "--disable-usage-stats", "--include-log-monitor=false"],
            *[f"--num-cpus={cpus}", f"--resources={json.dumps(resources)}", f"--object-store-memory={STORE_BYTES}"],
        ]
        return self.popen(command, node, env=RAY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def _link(self, node: str, state: str) -> None:
        self._output("ip", "link", "set", f"v{self._named(node)[1:]}", state)

    def _named(self, node: str) -> str:
        if node not in self.nodes:
            raise ConfigError(f"node {node!r}: the rig has {', '.join(self.nodes)}.")
        return node

    def _output(self, *command: str) -> str:
        return subprocess.run(self.inside(command), check=True, capture_output=True, text=True).stdout


def address(node: str) -> str:
    return f"10.77.0.{node[1:]}"


def obstacle() -> str | None:
    """Why there can be no rig on this machine; None where there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"a rig needs the command {', '.join(missing)} (Debian: util-linux, iproute2)"
    trial = "mount -t tmpfs tmpfs /run && ip link add br0 type bridge && ip link add v1 type veth peer name v2"
    done = subprocess.run([*NAMESPACES, "sh", "-c", trial], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"a rig needs unprivileged user namespaces with a network of their own, which this machine does not allow: {said}"
    return None


def run(nodes: int, cpus: int, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a rig and in it a command; the process ends, with the command's code, when both have ended.

    Raises:
        ConfigError: not on this machine, with the reason.
    """
    if why := obstacle():
        raise ConfigError(f"{why}.")
    spec = json.dumps({"nodes": nodes, "cpus": cpus, "command": list(command)})
    return subprocess.Popen([*NAMESPACES, sys.executable, "-m", "headrace.cluster.rig", spec], **options)


@contextlib.contextmanager
def raised(nodes: int, cpus: int) -> Iterator[Rig]:
    """A rig for as long as the context lasts, to be used from outside.

    Raises:
        ConfigError: not on this machine, or Ray does not come up.
    """
    told = ["sh", "-c", f"cat {RECORD} && exec cat"]  # which ends when this process does, however it does
    process = run(nodes, cpus, told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        if not line:
            raise ConfigError(f"the rig did not come up: {process.stderr.read().strip()}")
        (first,) = psutil.Process(process.pid).children()
        yield _read(line, first.pid)
    finally:
        process.kill()
        process.communicate()


def here() -> Rig:
    """The rig that this process is in.

    Raises:
        ConfigError: it is in none.
    """
    try:
        return _read(Path(os.environ["HEADRACE_RIG"]).read_text(), None)
    except (KeyError, FileNotFoundError):
        raise ConfigError("not inside a rig; `headrace cluster rig -- bash` opens a shell in one.") from None


def _read(line: str, first: int | None) -> Rig:
    values = json.loads(line)
    return Rig(**{**values, "nodes": tuple(values["nodes"]), "first": first})


def main(spec: Mapping[str, Any]) -> int:
    """Inside the namespaces: the network, the nodes, the command; its code."""
    nodes = tuple(f"n{number}" for number in range(1, spec["nodes"] + 2))
    rig = Rig(nodes, spec["cpus"], f"http://{address(HEAD)}:{DASHBOARD}", str(HOME / "token"))
    lay_network(rig.nodes)
    HOME.mkdir(mode=0o700)
    token = secrets.token_hex(32)
    Path(rig.token_path).touch(mode=0o600)
    Path(rig.token_path).write_text(token)
    started = time.monotonic()
    rig.start(HEAD)
    rig.start(*rig.nodes[1:])
    _wait_for_jobs_api(rig.address, token)
    RECORD.write_text(json.dumps(asdict(rig)) + "\n")
    print(f"rig: {', '.join(rig.nodes)} (n1 is the head) after {time.monotonic() - started:.0f} s, at {rig.address}", file=sys.stderr)
    print("rig: inside it, `headrace cluster fault cut|heal|kill|drain|start n2`", file=sys.stderr, flush=True)
    command = rig.popen(spec["command"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the command
    return _code(command.wait())


def lay_network(nodes: Sequence[str]) -> None:
    """A bridge, and for each node a network namespace that hangs on it."""
    lines = ["mount -t tmpfs tmpfs /run", "mkdir /run/netns", "ip link set lo up"]
    lines += ["ip link add br0 type bridge", f"ip addr add {BRIDGE}/24 dev br0", "ip link set br0 up"]
    for node in nodes:
        cable = f"v{node[1:]}"
        lines += [f"ip netns add {node}", f"ip link add {cable} type veth peer name eth0 netns {node}"]
        lines += [f"ip link set {cable} master br0 up", f"ip -n {node} addr add {address(node)}/24 dev eth0"]
        lines += [f"ip -n {node} link set eth0 up", f"ip -n {node} link set lo up"]
        lines += [f"ip -n {node} route add default via {BRIDGE}"]  # it is by this route that Ray finds the node's own address
    subprocess.run(["sh", "-ec", "\n".join(lines)], check=True)


def _wait_for_jobs_api(address: str, token: str) -> None:
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (OSError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _code(status: int) -> int:
    """Of a process that a signal ended, as a shell has it."""
    return status if status >= 0 else 128 - status


def reap(child: int) -> int:
    """As the first process: wait for what has lost its parent, until the child ends; its code."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    if child := os.fork():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os._exit(_code(reap(child)))
    try:
        sys.exit(main(json.loads(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(130)
    except (ConfigError, OSError, subprocess.CalledProcessError) as error:
        print(f"rig: {error}", file=sys.stderr)
        sys.exit(2)
