"""Ray with its autoscaler and nodes that are processes, in namespaces of its own: run_autoscaling.py FOLDER

FOLDER/spec.json holds `version` (of the autoscaler, 1 or 2), `types` (name -> resources, max_workers), `fails` (types that cannot be
launched), `labels` of the head, `command`, which is run once the head answers, and `until`, a text: once the command has said it, it is
ended. FOLDER/told.json says how it went: the command's code and what it said, how many nodes of each type there were at which second,
on how many nodes units of work were done, and how many seconds after the end only the head was left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path

HERE = "127.0.0.1"
HEAD = "f" * 51 + "00000"
PATIENCE_S = 60.0
NOTHING = {"auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "initialization_commands": []}
COMMANDS = ("setup_commands", "head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")


def autoscaling(spec: dict) -> dict:
    """The autoscaler's configuration, for Ray's provider of nodes that are processes."""
    head = {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0}
    types = {name: {"node_config": {}, "min_workers": 0, **given} for name, given in spec["types"].items()}
    provider = {
        # Under its own type's name, version 2 looks for a file of defaults that the package lacks.
        "type": "external",
        "module": "failing_provider.Provider",
        "fails": spec.get("fails", []),
        "head_node_id": HEAD,
        "gcs_address": f"{HERE}:6379",
        "launch_multiple": True,
        # Without these three, nodes are not taken down again.
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    return {
        "cluster_name": "fake",
        "max_workers": sum(given["max_workers"] for given in types.values()),
        "idle_timeout_minutes": 0.1,
        "provider": provider,
        "head_node_type": "ray.head.default",
        "available_node_types": {"ray.head.default": head, **types},
        "upscaling_speed": 100.0,
        **NOTHING,
        **{name: [] for name in COMMANDS},
    }


def start_head(spec: dict, home: Path) -> dict[str, str]:
    """Ray's head, without CPUs; the environment of its clients."""
    (home / "token").write_text("t" * 64)
    (home / "token").chmod(0o600)
    (home / "autoscaling.json").write_text(json.dumps(autoscaling(spec)))
    clients = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home / "token"), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **clients, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])  # of the provider
    # Of jobs: one of these stages takes no longer than the ten seconds that Ray Data looks back, or waits from one request to the next;
    # and with units of milliseconds a node is hardly ever as busy as it has to be for another one.
    environment |= {"RAY_DATA_MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS": "1", "RAY_DATA_CLUSTER_UTIL_AVG_WINDOW_S": "2"}
    environment["RAY_DATA_CLUSTER_SCALING_UP_UTIL_THRESHOLD"] = "0.2"
    if spec["version"] == 2:
        environment |= {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD}
    command = [
        *[sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=0", "--port=6379", f"--temp-dir={home / 'ray'}"],
        *[f"--autoscaling-config={home / 'autoscaling.json'}", f"--node-ip-address={HERE}", f"--dashboard-host={HERE}"],
        *[
            "--disable-usage-stats",
            f"--object-store-memory={128 << 20}",
            "--labels",
            ",".join(f"{k}={v}" for k, v in spec["labels"].items()),
        ],
    ]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return clients


class Census(threading.Thread):
    """Counts the living nodes of each type as long as the program runs."""

    def __init__(self, started: float, types: Collection[str]) -> None:
        super().__init__(daemon=True)
        self.started = started
        self.types = types
        self.seen: list[tuple[float, dict[str, int]]] = []

    def run(self) -> None:
        import ray

        ray.init(address=f"{HERE}:6379", logging_level="ERROR", log_to_driver=False)
        while True:
            alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            counted = dict(Counter(name for resources in alive for name in self.types if name in resources))
            if not self.seen or self.seen[-1][1] != counted:
                self.seen.append((round(time.monotonic() - self.started, 1), counted))
            time.sleep(0.1)


def main() -> None:
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "spec.json").read_text())
    subprocess.run(["sh", "-ec", "mount -t tmpfs tmpfs /run; ip link set lo up"], check=True)
    home = Path("/run/h")  # socket paths must be short
    home.mkdir()
    os.environ |= start_head(spec, home)
    census = Census(time.monotonic(), spec["types"])
    census.start()
    said = folder / "said.txt"
    with said.open("wb") as output:
        command = subprocess.Popen(spec["command"], stdout=output, stderr=output)
        while command.poll() is None:
            if spec["until"] and spec["until"] in said.read_text():
                command.kill()
            time.sleep(0.1)
    ended = time.monotonic()
    told = {"code": command.wait(), "said": said.read_text(), "seconds": round(ended - census.started, 1), "workers": places_of_units()}
    while time.monotonic() - ended < PATIENCE_S and not spec["until"] and not (census.seen and not census.seen[-1][1]):
        time.sleep(0.1)
    told |= {"seen": census.seen, "back": round(time.monotonic() - ended, 1)}
    told["monitor"] = "".join(path.read_text()[-20000:] for path in (home / "ray").glob("session_latest/logs/monitor*"))
    (folder / "told.json").write_text(json.dumps(told, indent=1))


def places_of_units() -> int:
    """Nodes on which Ray Data has applied functions to units of work."""
    from ray.util.state import list_tasks

    tasks = list_tasks(address=f"http://{HERE}:8265", filters=[("state", "=", "FINISHED")], limit=10_000)
    return len({task.node_id for task in tasks if "Map(" in task.name})


if __name__ == "__main__":
    main()
