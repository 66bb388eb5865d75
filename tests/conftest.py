"""One Ray session for all tests that need one, private to them; where real corpora are, if they are."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray in this process, with two CPUs and a temporary folder of its own (socket paths must be short)."""
    import ray

    temp = tempfile.mkdtemp(prefix="hrt-", dir="/tmp")
    pools = {"data": 2, "train": 2, "evaluate": 1}
    settings = {"include_dashboard": False, "logging_level": "ERROR", "object_store_memory": 256 << 20, "_temp_dir": temp}
    # Functions of the tests themselves are sent by name: workers import them from the root.
    ray.init(num_cpus=6, resources=pools, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, **settings)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
    shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real corpora, beside the project or named by HEADRACE_SHARED."""
    folder = Path(os.environ.get("HEADRACE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("the real corpora are not on this machine; HEADRACE_SHARED=FOLDER names the folder that holds data/")
    return folder
