"""The data job on a disk that is too small: exit 75, nothing half-written, and the same command goes on once there is room."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "curate_corpus.py"


def own_mounts():
    """The command prefix under which this user may mount a small disk of its own, or None."""
    prefix = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None:
        return None
    tried = subprocess.run([*prefix, "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"], capture_output=True)
    return prefix if tried.returncode == 0 else None


def test_a_full_disk_is_worth_retrying(tmp_path):
    prefix = own_mounts()
    if prefix is None:
        pytest.skip("the kernel lets this user mount nothing (no user namespaces), so no small disk can be made")
    draw = random.Random(1)
    words = [f"word{number}" for number in range(3000)]
    lines = [json.dumps({"id": str(number), "text": " ".join(draw.choices(words, k=300))}) for number in range(1000)]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines))
    config = {
        "out": str(tmp_path / "run"),
        "unit_bytes": 200_000,
        "sources": [{"name": "a", "kind": "prose", "path": str(tmp_path / "raw.jsonl"), "filters": []}],
        "split": {"validation": 0.1},
        "tokens": {"vocab_size": 400, "sequence_length": 16},
        "train": {"layout": {"data": 1}},
        "cluster": {"data_engine": "local"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    script = f"""
        mkdir -p {tmp_path}/run && mount -t tmpfs -o size=700k tmpfs {tmp_path}/run && cp {tmp_path}/config.yaml {tmp_path}/run
        {sys.executable} {SCRIPT} {tmp_path}/run; echo "first exit $?"
        ls {tmp_path}/run/data/ingest/*/manifest.json
        find {tmp_path}/run/data -name '*.parquet' -size 0
        mount -o remount,size=50m {tmp_path}/run
        {sys.executable} {SCRIPT} {tmp_path}/run; echo "second exit $?"
        ls {tmp_path}/run/data/tokens/*/manifest.json
    """
    done = subprocess.run([*prefix, "sh", "-c", script], capture_output=True, text=True, timeout=300)
    shown = done.stdout + done.stderr
    assert "first exit 75" in done.stdout, shown
    before = done.stdout.split("first exit 75")[1].split("second exit")[0]
    assert "manifest.json" not in before, shown
    assert ".parquet" not in before, shown
    assert "second exit 0" in done.stdout, shown
    assert "tokens/" in done.stdout.split("second exit 0")[1], shown
