"""A keyed reduce on the Ray cluster of this node: run_keyed.py FOLDER

FOLDER/in-*.parquet are reduced into FOLDER/ray; each reduce leaves a mark in FOLDER/marks that begins with the address of its node.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pyarrow as pa

PARTITIONS = 18


def main(folder: Path) -> None:
    import ray

    from headrace.shuffle import keyed_reduce

    def slow_sums(rows: pa.Table) -> pa.Table:
        (folder / "marks" / f"{ray.util.get_node_ip_address()}-{time.time_ns()}").touch()
        time.sleep(0.5)
        return rows.group_by("key").aggregate([("value", "sum")]).rename_columns(["key", "value"])

    ray.init(address="auto", logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    keyed_reduce(sorted(folder.glob("in-*.parquet")), "key", slow_sums, folder / "ray", partitions=PARTITIONS, engine="ray")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
