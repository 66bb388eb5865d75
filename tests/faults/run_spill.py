"""A keyed reduce whose spilled objects fill a small disk, and again once there is room: run_spill.py FOLDER, in a mount namespace.

FOLDER/in-*.parquet are reduced into FOLDER/ray. Prints one JSON line: the exit code and the sentence of the first try, the seconds of both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

STORE_BYTES = 80 << 20  # about the least that Ray takes
PARTITIONS = 6


def main(folder: Path) -> None:
    import ray

    from headrace.control.exits import exit_code, sentence
    from headrace.shuffle import keyed_reduce

    def last(rows: pa.Table) -> pa.Table:
        return rows.group_by("key").aggregate([("value", "max")]).rename_columns(["key", "value"])

    spill = folder / "spill"
    mounted("none", spill, "size=16m")
    mounted("none", Path("/run"), "size=512m")  # Ray's own files are not what is to be short of room
    ray.init(
        num_cpus=2,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        _temp_dir="/run/ray",
        object_spilling_directory=str(spill),
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    told: dict[str, Any] = {"code": 0, "sentence": ""}
    started = time.monotonic()
    inputs = sorted(folder.glob("in-*.parquet"))
    try:
        keyed_reduce(inputs, "key", last, folder / "ray", partitions=PARTITIONS, engine="ray")
    except Exception as error:
        told = {"code": exit_code(error), "sentence": sentence(error)}
    told["full_s"] = time.monotonic() - started
    subprocess.run(["mount", "-o", "remount,size=2g", str(spill)], check=True)
    started = time.monotonic()
    keyed_reduce(inputs, "key", last, folder / "ray", partitions=PARTITIONS, engine="ray")
    told["room_s"] = time.monotonic() - started
    print(json.dumps(told), flush=True)
    os._exit(0)  # what Ray started ends with the namespace


def mounted(what: str, folder: Path, options: str) -> None:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, what, str(folder)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
