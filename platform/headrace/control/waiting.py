"""What a cluster has no room for, as its autoscaler tells it: a job or a task may wait for a node that does not come."""

from __future__ import annotations

import ast
import logging
import re
import time
from collections.abc import Callable

log = logging.getLogger("headrace")

LOOK_S = 10.0
SECTIONS = ("Active", "Idle", "Pending", "Recent failures", "Total Usage", "From request_resources", "Pending Demands")
NUMBER = re.compile(r"[-\d.]+")


def waiting_for(status: str) -> str | None:
    """What of the demand no node that is there could ever serve, what is being started, and what could not be; None if nothing waits so.

    Args:
        status: as `ray status` prints it, and GET /api/cluster_status?format=1 gives it.
    """
    lines = _sections(status)
    has = dict(_total(line) for line in lines["Total Usage"] if "/" in line)
    unserved = [demand for demand in lines["Pending Demands"] if _exceeds(demand, has)]
    if not unserved:
        return None
    starting = [line for line in lines["Pending"] if not line.startswith("(")]
    failed = sorted({line.partition(" (latest")[0] for line in lines["Recent failures"] if not line.startswith("(")})
    said = f"waiting for nodes: none has room for {'; '.join(unserved)}"
    if starting:
        said += f"; on their way: {', '.join(starting)}"
    if failed:
        said += f"; could not be started: {', '.join(failed)}"
    if not starting and not failed:
        said += "; the cluster starts none for it"
    return said


def _sections(status: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in SECTIONS}
    section = None
    for line in status.splitlines():
        if line.endswith(":") and line[:-1] in found:
            section = found[line[:-1]]
        elif not line.startswith(" "):
            section = None
        elif section is not None:
            section.append(line.strip())
    return found


def _total(line: str) -> tuple[str, float]:
    """Of "0.5/2.0 CPU": ("CPU", 2.0); sizes like 20.80GiB are no numbers to compare with and count as infinite."""
    amounts, _, name = line.partition(" ")
    total = amounts.partition("/")[2]
    return name.partition(" ")[0], float(total) if NUMBER.fullmatch(total) else float("inf")


def _exceeds(demand: str, has: dict[str, float]) -> bool:
    """Whether a demand like "{'CPU': 1.0, 'data': 1.0}: 3+ pending tasks/actors" names more of something than all nodes have together."""
    bundle = re.search(r"\{[^{}]*\}", demand)
    if bundle is None:
        return False
    try:
        wanted: dict[str, float] = ast.literal_eval(bundle.group())
    except (ValueError, SyntaxError):
        return False
    return any(has.get(name, 0.0) < amount for name, amount in wanted.items())


class Waiting:
    """Tells, each time that it changes, what a run's cluster has no room for."""

    def __init__(self, status: Callable[[], str]) -> None:
        """
        Args:
            status: asks the cluster; may raise ConnectionError.
        """
        self._status = status
        self._looked = time.monotonic()
        self._told: str | None = None

    def look(self) -> None:
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        try:
            found = waiting_for(self._status())
        except ConnectionError:
            return  # that it does not answer is told by who needs an answer
        if found and found != self._told:
            log.warning("%s", found)
        self._told = found
