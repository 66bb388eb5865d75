"""Rules for the commands that start Ray, wherever they stand: a launcher's file or a script."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from headrace.cluster.commands import KEEPALIVE, TOKEN_FILE
from headrace.cluster.mistakes import Mistake

LOOPBACKS = {"127.0.0.1", "localhost", "::1"}
START_S, STOP_S, OPEN_FILES = 3600, 60, 65536


def environment(command: str) -> dict[str, str]:
    """Variables that a command sets, by `export A=1 B=2;` or in front of what it calls."""
    return {
        name: value.strip("'\"")
        for name, value in re.findall(r"(?<![\w$-])([A-Za-z_][A-Za-z0-9_]*)=('[^']*'|\"[^\"]*\"|[^\s;&]+)", command)
    }


def flag(command: str, name: str) -> str | None:
    """The value of `--name=value` or `--name value`."""
    found = re.search(rf"--{name}[= ]('[^']*'|\"[^\"]*\"|\S+)", command)
    return found.group(1).strip("'\"") if found else None


def starts_ray(command: str) -> bool:
    return bool(re.search(r"\bray\s+start\b", command))


def start_mistakes(command: str, place: str, *, head: bool, inherited: Mapping[str, str]) -> Iterator[Mistake]:
    """What is wrong with a `ray start`.

    Args:
        head: of a cluster of several machines.
        inherited: variables that are set before it: in a script, or by the container's run_options.
    """
    known = {**inherited, **environment(command)}

    def lacks(rule: str, name: str, wanted: str, why: str) -> Mistake:
        return Mistake(place, rule, f"`ray start` with {name} = {known.get(name, 'unset')}; put {name}={wanted} in front of it: {why}")

    if known.get("RAY_AUTH_MODE") != "token":
        yield lacks("token", "RAY_AUTH_MODE", "token", "whoever reaches the node could run code on it")
    if not known.get("RAY_AUTH_TOKEN_PATH"):
        yield lacks("token", "RAY_AUTH_TOKEN_PATH", TOKEN_FILE, "a node without the token joins nothing")
    for name, wanted in KEEPALIVE.items():
        if not known.get(name, "").isdigit() or int(known[name]) > 30_000:
            yield lacks("keepalive", name, wanted, "a node that vanishes without a word is not noticed for minutes")
    if not known.get("RAY_JOB_STOP_WAIT_TIME_S", "").isdigit() or int(known["RAY_JOB_STOP_WAIT_TIME_S"]) < STOP_S:
        yield lacks("job-stop", "RAY_JOB_STOP_WAIT_TIME_S", "600", "Ray's 3 s are too few for a last checkpoint")
    host = flag(command, "dashboard-host")
    if host and host not in LOOPBACKS:
        yield Mistake(place, "dashboard", f"--dashboard-host={host} opens the dashboard; use 127.0.0.1 and `ray dashboard` to forward it")
    if head:
        yield from _head_mistakes(command, place, known)


def _head_mistakes(command: str, place: str, known: Mapping[str, str]) -> Iterator[Mistake]:
    if flag(command, "num-cpus") != "0":
        found = flag(command, "num-cpus") or "unset"
        yield Mistake(
            place, "head-cpu", f"--num-cpus is {found} on the head; use --num-cpus=0, or stages run beside the cluster's state and kill it"
        )
    if not known.get("RAY_JOB_START_TIMEOUT_SECONDS", "").isdigit() or int(known["RAY_JOB_START_TIMEOUT_SECONDS"]) < START_S:
        found = known.get("RAY_JOB_START_TIMEOUT_SECONDS", "unset (900)")
        yield Mistake(
            place, "job-start", f"RAY_JOB_START_TIMEOUT_SECONDS is {found}; use 7200: a job may wait for a machine that is being started"
        )


def limit_mistakes(command: str, place: str) -> Iterator[Mistake]:
    """What is wrong with the limits of a `ray start` on a machine of its own."""
    found = re.search(r"ulimit -n (\d+)", command)
    if not found or int(found.group(1)) < OPEN_FILES:
        yield Mistake(
            place,
            "ulimit",
            f"open files are {found.group(1) if found else 'as the machine has them'}; put `ulimit -n {OPEN_FILES};` in front",
        )
    if not flag(command, "object-spilling-directory"):
        yield Mistake(place, "spill", "objects are spilled below /tmp; name a folder with room: --object-spilling-directory=/mnt/spill")


def script_mistakes(lines: Sequence[str]) -> Iterator[Mistake]:
    """What is wrong with the `ray start` commands of a shell script."""
    inherited: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#"):
            continue
        if starts_ray(line):
            yield from start_mistakes(line, f"line {number}", head=False, inherited=inherited)
            if "--head" in line and flag(line, "node-ip-address") not in LOOPBACKS:
                yield Mistake(
                    f"line {number}",
                    "address",
                    "a head that other machines reach; a launcher's file starts those, a script uses --node-ip-address=127.0.0.1",
                )
        inherited |= environment(line) if line.lstrip().startswith("export ") else {}
