"""The cloud's notice that it takes a machine back, passed on to Ray as the drain of its nodes.

    python -m headrace.cluster.notice aws|gcp|azure --address=HEAD:6379    watches until the notice comes; runs on every worker
    python -m headrace.cluster.notice now --address=HEAD:6379 --seconds=100   drains at once and waits until the node is empty

Ray knows no cloud's notice itself. A drained node gets no new work, and Ray Train tells the workers on it, which save their state
(`headrace.train.drain`). What each cloud says, and how long before the end: AWS two minutes (IMDSv2, spot/instance-action), Google
30 seconds (instance/preempted), Azure at least 30 seconds (scheduled events of type Preempt; its other events end a machine as well).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

log = logging.getLogger("headrace")

LOOK_S = 2.0  # between two questions; the shortest notice is 30 s
TIMEOUT_S = 5.0
LINK_LOCAL = "http://169.254.169.254"
ENDS = {"Preempt", "Terminate", "Redeploy"}  # Azure's events after which the machine's work is gone
GOOGLE_S, AZURE_S = 30.0, 30.0


@dataclass(frozen=True)
class Notice:
    """A machine is about to go."""

    why: str
    deadline: float  # seconds since the epoch


Drain = Callable[[Notice], None]


def aws(base: str = LINK_LOCAL) -> Notice | None:
    """What the instance metadata service says, asked with a session token (IMDSv2)."""
    token = _ask(f"{base}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "300"}, method="PUT")
    found = _ask(f"{base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token or ""})
    if found is None:
        return None
    action = json.loads(found)
    return Notice(f"AWS is to {action['action']} this spot instance", _time(action["time"]))


def gcp(base: str = "http://metadata.google.internal") -> Notice | None:
    found = _ask(f"{base}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return Notice("Google preempts this machine", time.time() + GOOGLE_S) if found is not None and found.strip() == "TRUE" else None


def azure(base: str = LINK_LOCAL) -> Notice | None:
    """The earliest event that ends this machine; those of its neighbours are listed beside it."""
    headers = {"Metadata": "true"}
    found = _ask(f"{base}/metadata/scheduledevents?api-version=2020-07-01", headers)
    events = [event for event in json.loads(found or "{}").get("Events", []) if event["EventType"] in ENDS]
    if not events:
        return None
    name = _ask(f"{base}/metadata/instance/compute/name?api-version=2021-02-01&format=text", headers)
    own = [event for event in events if name in event["Resources"]]
    times = [parsedate_to_datetime(event["NotBefore"]).timestamp() if event.get("NotBefore") else time.time() + AZURE_S for event in own]
    return Notice(f"Azure: {own[times.index(min(times))]['EventType']}", min(times)) if own else None


CLOUDS: Mapping[str, Callable[[], Notice | None]] = {"aws": aws, "gcp": gcp, "azure": azure}


def _ask(url: str, headers: Mapping[str, str], method: str = "GET") -> str | None:
    """The answer; None where there is nothing of the name.

    Raises:
        OSError: no answer, or a refusal.
    """
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers), method=method), timeout=TIMEOUT_S) as response:
            answer: bytes = response.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return answer.decode()


def _time(text: str) -> float:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def watch(look: Callable[[], Notice | None], drain: Drain, every_s: float = LOOK_S) -> Notice:
    """Ask until a notice comes, drain, and return it. What fails is asked, or drained, again: nobody else would."""
    quiet = True
    while True:
        try:
            notice = look()
            if notice is not None:
                log.warning("%s; its Ray nodes are drained", notice.why)
                drain(notice)
                return notice
            quiet = True
        except Exception as error:
            if quiet:  # once for each stretch of failures
                log.warning("%s: %s; asked again every %g s", type(error).__name__, error, every_s)
            quiet = False
        time.sleep(every_s)


def drain_here(address: str) -> Drain:
    """A function that drains every Ray node of this machine's address: they all go with it.

    Args:
        address: HOST:PORT of the cluster's GCS.
    """

    def drain(notice: Notice) -> None:
        from ray.core.generated import autoscaler_pb2

        client, nodes = nodes_here(address)
        for node in nodes:
            reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
            accepted, why = client.drain_node(node, reason, notice.why, int(notice.deadline * 1000))
            if not accepted:
                raise RuntimeError(f"Ray refused to drain node {node}: {why}")

    return drain


def nodes_here(address: str) -> tuple[Any, list[str]]:
    """A client of the GCS, and the ids of the living nodes of this machine's address."""
    import ray

    client = ray._raylet.GcsClient(address=address)
    here = {ray.util.get_node_ip_address(), "127.0.0.1"}
    alive = ray.core.generated.gcs_pb2.GcsNodeInfo.GcsNodeState.Value("ALIVE")
    found = client.get_all_node_info(timeout=TIMEOUT_S)
    nodes = [node for node in found.values() if node.state == alive and node.node_manager_address in here]
    return client, [node.node_id.hex() for node in nodes]


def drain_now(address: str, seconds: float) -> None:
    """Drain, and return when the nodes are empty and have ended, or when the time is over."""
    deadline = time.time() + seconds
    drain_here(address)(Notice("the pod ends", deadline))
    while time.time() < deadline and nodes_here(address)[1]:
        time.sleep(1)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m headrace.cluster.notice")
    parser.add_argument("cloud", choices=[*CLOUDS, "now"])
    parser.add_argument("--address", required=True, help="HOST:PORT of the cluster's GCS")
    parser.add_argument("--seconds", type=float, default=100.0, help="with `now`: until the end")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if given.cloud == "now":
        drain_now(given.address, given.seconds)
    else:
        watch(CLOUDS[given.cloud], drain_here(given.address))


if __name__ == "__main__":
    main(sys.argv[1:])
