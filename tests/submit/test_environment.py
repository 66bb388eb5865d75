"""What is compared before a submitted run begins, and that the comparison runs where headrace is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.submit import environment


def test_every_difference_is_a_sentence():
    here = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0", "headrace files": "aa"}
    there = {"python": "3.11.4", "ray": "2.60.0", "headrace files": "bb", "numpy": "1.0"}
    assert environment.differences(here, there) == [
        "python is 3.11.9 here, 3.11.4 on the cluster",
        "torch 2.13.0 is here, and none on the cluster",
        "headrace files is aa here, bb on the cluster",
    ]
    assert environment.differences(here, here) == []


def test_this_environment_names_what_results_depend_on():
    found = environment.environment()
    assert {"python", "ray", "torch", "deepspeed", "polars", "pyarrow", "headrace", "headrace files"} <= found.keys()
    assert "pytest" not in found  # an extra
    assert not [value for value in found.values() if "+" in value]


def test_the_digest_is_that_of_names_and_contents(tmp_path):
    package = tmp_path / "a"
    (package / "room").mkdir(parents=True)
    (package / "room" / "one.py").write_text("x = 1\n")
    first = environment.digest(package)
    (package / "room" / "notes.txt").write_text("no code")
    shutil.copytree(package, tmp_path / "b")
    assert environment.digest(tmp_path / "b") == first
    (package / "room" / "one.py").rename(package / "room" / "two.py")
    assert environment.digest(package) != first


@pytest.mark.parametrize("lacking", ["another version", "no headrace"])
def test_the_sent_file_alone_refuses_another_environment(tmp_path, lacking):
    """Started as the job starts it: by itself, from a folder of its own; without headrace, as on a bare node."""
    shutil.copy(environment.__file__, tmp_path / "environment.py")
    expected = environment.environment() | ({"ray": "2.0.0"} if lacking == "another version" else {})
    (tmp_path / "expected.json").write_text(json.dumps({"environment": expected, "upto": "data"}))
    bare = ["-I", "-S"] if lacking == "no headrace" else []
    done = subprocess.run([sys.executable, *bare, "environment.py", "."], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == environment.CONFIGURATION
    if lacking == "no headrace":
        assert f"headrace {expected['headrace']} is here, and none on the cluster" in done.stderr
    else:
        assert f"headrace: ray is 2.0.0 here, {environment.environment()['ray']} on the cluster" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_exit_code_is_that_of_the_command():
    from headrace.control import exits

    assert environment.CONFIGURATION == exits.CONFIGURATION
    assert Path(environment.__file__).read_text().count("from headrace") == 0
