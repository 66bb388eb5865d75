"""A driver of training under Ray Train, with a Ray of its own: run_fit.py SPEC.json WORKERS [NODES]

With NODES, besides a head that has no room for workers, so many nodes of one core; the file SPEC.do then asks for "drain" (of the node
that was added last) or "add" (a node). It ends with code 0, or with 1 and the type and text of its error in SPEC.error.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import ray

from headrace.train.fit import fit

NODE = {"object_store_memory": 100 << 20}


def obey(orders: Path, cluster, nodes: list) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    while True:
        time.sleep(0.05)
        if not orders.exists() or not (order := orders.read_text()):
            continue
        orders.unlink()
        if order == "add":
            nodes.append(cluster.add_node(num_cpus=1, **NODE))
        else:
            reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
            deadline_ms = int((time.time() + 600) * 1000)
            print("drained:", GcsClient(cluster.address).drain_node(nodes[-1].node_id, reason, "taken away", deadline_ms), flush=True)


def start(path: Path, workers: int) -> None:
    ray.init(num_cpus=workers, include_dashboard=False, logging_level="WARNING", _temp_dir=temporary(path), **NODE)


def start_nodes(path: Path, count: int):
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "temp_dir": temporary(path), "include_dashboard": False, **NODE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, **NODE) for _ in range(count)]
    ray.init(address=cluster.address, logging_level="WARNING")
    return cluster, nodes


def temporary(path: Path) -> str:
    made = tempfile.mkdtemp(prefix="hrx-", dir="/tmp")  # socket paths must be short
    path.with_suffix(".ray").write_text(made)
    return made


def drive(path: Path, workers: int) -> None:
    spec = json.loads(path.read_text())
    code = 0
    try:
        fit(spec, workers, spec["train"]["max_failures"])
    except Exception as error:
        path.with_suffix(".error").write_text(json.dumps({"type": type(error).__name__, "message": str(error)}))
        code = 1
    ray.shutdown()
    shutil.rmtree(path.with_suffix(".ray").read_text(), ignore_errors=True)
    os._exit(code)


def main(path: Path, workers: int, nodes: int | None = None) -> None:
    if nodes is None:
        start(path, workers)
        drive(path, workers)
    else:
        cluster, added = start_nodes(path, nodes)
        # Nodes can be added by the main thread alone.
        threading.Thread(target=drive, args=(path, workers), daemon=True).start()
        obey(path.with_suffix(".do"), cluster, added)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:]))
