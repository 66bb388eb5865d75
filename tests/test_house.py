"""The house itself: import directions, style, types, files that must not exist."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "platform" / "headrace"

# A room may import rooms of its own floor and of floors below it.
FLOORS = (
    ("schema", "config", "text", "paths", "capacity"),
    ("storage", "credentials"),
    ("events", "fence"),
    ("artifact",),
    ("stage", "shuffle", "verdicts"),
    ("filters",),
    ("ingest",),
    ("decontaminate", "dedup", "split"),
    ("tokens",),
    ("model", "objectives"),
    ("batches", "checkpoint"),
    ("train", "evaluate"),
    ("observe",),
    ("report",),
    ("inspection", "materialize"),
    ("run",),
    ("pipeline",),
    ("control", "plan", "terminal"),
    ("submit", "cluster", "doctor"),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
WITHOUT_RAY = ("model", "objectives", "batches/order.py", "train/step.py", "checkpoint", "evaluate")


def modules():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def imported(path):
    """Full names of everything that a file imports when it runs, wherever in it; imports for type checkers alone are no dependency."""
    tree = ast.parse(path.read_text())
    for_types = [
        node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    tree.body = [node for node in tree.body if node not in for_types]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_one_way(path):
    here = room(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "headrace" and len(parts) > 1 and parts[1] in FLOOR:
            assert FLOOR[parts[1]] <= FLOOR[here], f"{here} imports {name}, which lies above it"
    if here == "evaluate":
        assert not [name for name in imported(path) if name.startswith("headrace.train")]


@pytest.mark.parametrize("place", WITHOUT_RAY)
def test_the_worker_s_rooms_know_no_ray(place):
    found = PACKAGE / place
    for path in sorted(found.rglob("*.py")) if found.is_dir() else [found]:
        assert not [name for name in imported(path) if name.split(".")[0] == "ray"], path


def test_a_configuration_is_read_and_a_run_is_looked_at_without_torch():
    """It takes two seconds and 250 MB, in every verb, in a run's driver and in its data job."""
    code = """
import sys
import headrace.control.controller, headrace.pipeline, headrace.submit.standing
from headrace.config import validate
from headrace.run import RunConfig, check_run
config = validate(RunConfig, {"out": "run", "sources": [{"name": "a", "kind": "prose", "path": "*.txt"}]}, "run.yaml")
check_run(config, "run.yaml")
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_deepspeed_is_imported_inside_functions_only():
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not [name for name in names if name.split(".")[0] == "deepspeed"], path


def test_python_s_own_platform_module_is_not_shadowed():
    assert not (ROOT / "platform" / "__init__.py").exists()
    scripts = [path.stem for path in (ROOT / "jobs").glob("*.py")]
    assert not set(scripts) & set(sys.stdlib_module_names)


def test_every_room_of_the_package_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    rooms = {room(path) for path in modules()}
    assert not [name for name in rooms if f"{name}/" not in readme and f"{name}.py" not in readme]


@pytest.mark.parametrize("tool", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join)
def test_style_and_types(tool):
    done = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
