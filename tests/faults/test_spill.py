"""Spilled objects fill the disk that Ray has for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.cluster.rig import NAMESPACES, obstacle
from headrace.control.exits import RETRY
from headrace.shuffle import keyed_reduce

SCRIPT = Path(__file__).with_name("run_spill.py")
FILES, ROWS, PARTITIONS = 8, 900_000, 6  # 115 MB, of which 96 find a place
PATIENCE_S = 400.0


def largest(rows: pa.Table) -> pa.Table:
    return rows.group_by("key").aggregate([("value", "max")]).rename_columns(["key", "value"])


def test_a_full_spill_disk_is_told_and_the_same_call_goes_on_once_there_is_room(
    needs: Callable[[str, str | None], None], tmp_path: Path
) -> None:
    needs("namespaces", obstacle())
    generator = np.random.default_rng(0)
    for number in range(FILES):
        columns = {name: generator.integers(0, 1 << 60, ROWS) for name in ("key", "value")}
        pq.write_table(pa.table(columns), tmp_path / f"in-{number}.parquet")
    command = [*NAMESPACES, "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["code"] == RETRY
    assert "the disk that Ray spills to" in told["sentence"] and "--object-spilling-directory" in told["sentence"]
    inputs = sorted(tmp_path.glob("in-*.parquet"))
    parts = keyed_reduce(inputs, "key", largest, tmp_path / "local", partitions=PARTITIONS, engine="local")
    assert [path.read_bytes() for path in parts] == [(tmp_path / "ray" / path.name).read_bytes() for path in parts]
