"""What an engine is started with, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.train.memory import BUCKET_ELEMENTS, CPU_BUCKET_ELEMENTS, bucket_elements
from headrace.train.process import LARGEST_KEPT


def test_a_bucket_of_a_cpu_is_kept_from_step_to_step() -> None:
    assert bucket_elements(on_gpu=False) == CPU_BUCKET_ELEMENTS and 4 * CPU_BUCKET_ELEMENTS < LARGEST_KEPT
    assert bucket_elements(on_gpu=True) == BUCKET_ELEMENTS


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, lab: Any) -> Path:
    """Runs with compiled blocks where there is no compiler."""
    folder: Path = tmp_path_factory.mktemp("engine")
    lab.write_tokens(folder / "tokens")
    without = type(lab)()
    without.environment = {**lab.environment, "CXX": str(folder / "no-such-compiler")}
    without.run(folder, 2, [lab.case(lab.spec(folder, "refused", compile=True, layout={"zero": 0}))])
    return folder


def test_compiled_blocks_need_a_compiler(runs: Path, lab: Any) -> None:
    for rank in (0, 1):
        error = lab.error(runs, "refused", rank)
        assert error is not None and error["type"] == "ConfigError"
        assert "train.compile = true" in error["message"] and "set train.compile=false" in error["message"]
