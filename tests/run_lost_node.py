"""A keyed reduce on a cluster of two nodes, of which one is killed while it reduces: run_lost_node.py FOLDER

FOLDER/in-*.parquet are reduced into FOLDER/ray. FOLDER/told.json says which node was killed, which had begun to reduce by then, and
which were alive at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyarrow as pa

PARTITIONS = 12


def slow_sums(rows: pa.Table) -> pa.Table:
    """Sum of each key, at leisure; leaves a mark that says which node works at it."""
    import ray

    marks = Path(os.environ["MARKS"])
    (marks / f"{ray.get_runtime_context().get_node_id()}-{time.time_ns()}").touch()
    time.sleep(0.3)
    return rows.group_by("key").aggregate([("value", "sum")]).rename_columns(["key", "value"])


def main() -> None:
    folder = Path(sys.argv[1])
    marks = folder / "marks"
    marks.mkdir()
    os.environ |= {"MARKS": str(marks), "RAY_USAGE_STATS_ENABLED": "0"}

    import ray
    from ray.cluster_utils import Cluster

    from headrace.shuffle import keyed_reduce

    # A dead node is noticed within two seconds instead of half a minute.
    check = {"initial_delay_ms": 1000, "period_ms": 500, "timeout_ms": 500, "failure_threshold": 3}
    system = {f"health_check_{name}": value for name, value in check.items()}
    temp = tempfile.mkdtemp(prefix="hrl-", dir="/tmp")  # socket paths must be short
    node = {"num_cpus": 2, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "temp_dir": temp, "include_dashboard": False, "_system_config": system})
    other = cluster.add_node(**node)
    settings = {"PYTHONPATH": os.pathsep.join(sys.path), "MARKS": str(marks)}
    ray.init(address=cluster.address, logging_level="ERROR", runtime_env={"env_vars": settings})
    ray.data.DataContext.get_current().enable_progress_bars = False
    told: dict[str, list[str]] = {}

    def kill() -> None:
        while not list(marks.glob(f"{other.node_id}-*")):
            time.sleep(0.01)
        told["before"] = sorted({path.name.partition("-")[0] for path in marks.iterdir()})
        os.kill(other.all_processes["raylet"][0].process.pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    keyed_reduce(sorted(folder.glob("in-*.parquet")), "key", slow_sums, folder / "ray", partitions=PARTITIONS, engine="ray")
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    (folder / "told.json").write_text(json.dumps({**told, "killed": other.node_id, "alive": alive}))
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(temp, ignore_errors=True)


if __name__ == "__main__":
    main()
