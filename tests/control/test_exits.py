from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from headrace import fence, storage
from headrace.artifact import QualityGateError, StageError
from headrace.config import ConfigError
from headrace.control.exits import RunError, exit_code, sentence
from headrace.control.jobs import beat_path, error_path
from headrace.storage.object_store import StorageError

FULL = OSError(errno.ENOSPC, "No space left on device", "/data/run/x.parquet")


@pytest.mark.parametrize(
    "error, code",
    [
        (ConfigError("x"), 2),
        (QualityGateError("x"), 3),
        (StageError("x"), 1),
        (ValueError("x"), 1),
        (FULL, 75),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 75),
        (RuntimeError("ray::Map() OSError: [Errno 28] No space left on device"), 75),
        (KeyboardInterrupt(), 130),
        (RunError("x", 3), 3),
    ],
)
def test_each_kind_of_end_has_its_code(error, code):
    assert exit_code(error) == code


def test_the_cause_counts_wherever_it_stands():
    wrapped = RuntimeError("the stage failed")
    wrapped.__cause__ = FULL
    assert exit_code(wrapped) == 75
    assert "/data/run/x.parquet" in sentence(wrapped)
    assert "free some space" in sentence(wrapped)
    as_ray_does = RuntimeError("task failed")
    as_ray_does.cause = ConfigError("sources.0.path: nothing there")
    assert exit_code(as_ray_does) == 2
    assert sentence(as_ray_does) == "sources.0.path: nothing there"


@pytest.mark.parametrize("kind, code", [(StorageError, 75), (ConfigError, 2)])
def test_of_a_worker_s_error_the_text_is_enough(kind, code):
    told = f"{kind.__module__}.{kind.__name__}: s3://bucket/key: try again."
    as_ray_data_does = RuntimeError(
        f"ray::Map(apply)() (pid=1)\n  File 'objects.py', line 1, in read\n{told}\n\nThe above exception was the direct cause of the "
        f"following exception:\n\nray.exceptions.UserCodeException: UDF failed to process a data block."
    )
    assert exit_code(as_ray_data_does) == code
    assert sentence(as_ray_data_does) == "s3://bucket/key: try again."


def test_an_error_of_no_known_kind_keeps_its_name_and_last_line():
    assert sentence(ValueError("first\nlast words\n")) == "ValueError: last words"


@pytest.mark.parametrize(
    "body, code", [("raise ConfigError('mend it')", 2), ("pass", 0), ("raise OSError(28, 'No space left on device')", 75)]
)
def test_a_job_leaves_its_reason_and_exits_with_its_code(tmp_path, body, code):
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom headrace.config import ConfigError\nfrom headrace.control.exits import run_job\n"
        f"def main(run):\n    {body}\nrun_job(main, Path(sys.argv[1]))\n"
    )
    environment = {"HEADRACE_SUBMISSION": "job-a1", "PATH": ""}
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "run")], env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    path = error_path(tmp_path / "run", "job-a1")
    assert path.exists() == (code != 0)
    if code:
        assert storage.read_json(path)["exit_code"] == code


def run_body(tmp_path, body, **variables):
    script = tmp_path / "job.py"
    script.write_text(
        "import os, sys, time\nfrom pathlib import Path\nfrom headrace.control.exits import run_job\n"
        f"def main(run):\n    {body}\nrun_job(main, Path(sys.argv[1]))\n"
    )
    environment = {"HEADRACE_SUBMISSION": "job-a1", "PATH": "", **variables}
    return subprocess.run([sys.executable, str(script), str(tmp_path / "run")], env=environment, capture_output=True, text=True)


def test_a_job_that_has_a_successor_ends_quietly_and_does_nothing(tmp_path):
    run = tmp_path / "run"
    for number in (1, 2):
        storage.create(fence.attempt_path(run, "data", number), b"{}")
    done = run_body(tmp_path, "(run / 'touched').touch()", **fence.Identity(run, "data", 1).variables())
    assert done.returncode == fence.EXIT_CODE
    assert "attempt 1 at data is fenced" in done.stderr and "Traceback" not in done.stderr
    assert not error_path(run, "job-a1").exists() and not (run / "touched").exists()
    assert run_body(tmp_path, "(run / 'touched').touch()", **fence.Identity(run, "data", 2).variables()).returncode == 0
    assert (run / "touched").exists()


def test_a_job_gives_signs_of_life_until_it_has_ended_in_order(tmp_path):
    run, wait = tmp_path / "run", "while not list((run / 'control' / 'beats').glob('job-a1.json')): time.sleep(0.01)"
    assert run_body(tmp_path, wait).returncode == 0, "there was one"
    beat = beat_path(run, "job-a1")
    assert not beat.exists()
    done = run_body(tmp_path, f"{wait}\n    os.kill(os.getpid(), 9)")
    assert done.returncode == -9 and storage.read_json(beat)["beat"] >= 1
