"""Runs on a cluster that has a head alone at first, under Ray's own autoscalers; nodes are processes, in namespaces of their own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.capacity import growth
from headrace.cluster.rig import NAMESPACES, obstacle
from headrace.pipeline import curate
from headrace.run import load_run

SCRIPT = Path(__file__).with_name("run_autoscaling.py")
VERSIONS = [2, pytest.param(1, marks=pytest.mark.full)]  # of the autoscaler
TEXT = "the river ran past an old mill and its wheel turned slowly while grain became flour for bread that fed many people in town"
WORDS = tuple(TEXT.split())
DATA = {"resources": {"CPU": 1, "data": 1}, "labels": {"pool": "data"}, "max_workers": 2}
SPOT = {"resources": {"CPU": 1, "data": 1, "spot": 1}, "labels": {"pool": "data"}, "max_workers": 2}
EVALUATE = {"resources": {"CPU": 1, "evaluate": 1}, "labels": {"pool": "evaluate"}, "max_workers": 1}
TRAIN = {"resources": {"CPU": 2, "train": 2}, "labels": {"pool": "train"}, "max_workers": 2}


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, dict[str, Any]], Path]:
    """A function of a run's name and of its cluster that gives its configuration file; about a hundred units a stage."""
    folder = tmp_path_factory.mktemp("autoscaling")
    draw = random.Random(7)
    texts = [" ".join(draw.choice(WORDS) + draw.choice(["", "s", "ed", ","]) for _ in range(draw.randrange(80, 240))) for _ in range(6000)]
    (folder / "a.jsonl").write_text("".join(json.dumps({"id": f"d{number}", "text": text}) + "\n" for number, text in enumerate(texts)))

    def configure(name: str, cluster: dict[str, Any]) -> Path:
        values = {
            "out": str(folder / name / "run"),
            "unit_bytes": 65536,
            "sources": [{"name": "mill", "kind": "prose", "path": str(folder / "a.jsonl"), "filters": []}],
            "tokens": {"vocab_size": 384, "sequence_length": 32},
            "split": {"validation": 0.1},
            "model": {"layers": 1, "hidden": 16, "heads": 2},
            "train": {"steps": 20, "batch": {"global": 8, "micro": 4}, "num_workers": 2, "checkpoint": {"every": 20}},
            "evaluate": {"max_tokens": 500},
            "cluster": cluster,
        }
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(yaml.safe_dump(values))
        return folder / name / "config.yaml"

    return configure


@pytest.fixture
def autoscaled(configured: Any, needs: Callable[[str, str | None], None]) -> Callable[..., dict[str, Any]]:
    """A function that brings a run, or its data, up on a cluster of these node types, and tells how it went."""
    needs("namespaces", obstacle())

    def run(
        name: str, version: int, types: dict[str, Any], fails: list[str], until: str | None = None, verb: str = "data"
    ) -> dict[str, Any]:
        path = configured(name, {"address": "http://127.0.0.1:8265"})
        totals = {
            name: sum(each["max_workers"] * each["resources"].get(name, 0) for each in types.values())
            for name in ("CPU", "data", "train", "evaluate")
        }
        command = [sys.executable, "-m", "headrace.cli", verb, str(path)]
        spec = {"version": version, "types": types, "fails": fails, "labels": growth(totals), "command": command, "until": until}
        (path.parent / "spec.json").write_text(json.dumps(spec))
        done = subprocess.run([*NAMESPACES, sys.executable, str(SCRIPT), str(path.parent)], capture_output=True, text=True, timeout=400)
        assert (path.parent / "told.json").exists(), done.stdout + done.stderr
        told: dict[str, Any] = json.loads((path.parent / "told.json").read_text())
        print(f"version {version}: {told['seconds']} s, then {told['back']} s to the head alone; {told['seen']}")
        return told | {"run": path.parent / "run"}

    return run


@pytest.fixture(scope="module")
def alone(configured: Any) -> Path:
    """The same data made in this process."""
    config = load_run(configured("alone", {"data_engine": "local", "cpus": 2}))
    curate(config, "local")
    return config.folder


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_begins_on_a_head_alone_grows_to_the_most_and_shrinks_again(version: int, autoscaled: Any, alone: Path) -> None:
    # The older one meets a request for bare CPUs with any type of node, and tries one that is not to be had for ever.
    types, fails = ({"spot": SPOT, "data": DATA, "train": TRAIN}, ["spot"]) if version == 2 else ({"data": DATA}, [])
    told = autoscaled(f"grows-{version}", version, types, fails)
    assert told["code"] == 0, told["said"]
    counted = [count for _, count in told["seen"]]
    assert counted[0] == {} and counted[-1] == {}, counted
    assert max(count.get("data", 0) for count in counted) == 2, "as many as it may be and no more"
    assert all("spot" not in count for count in counted), "which were not to be had"
    assert all("train" not in count for count in counted), "no stage of the data is a reason for a node of another pool"
    assert told["workers"] >= 2, "units went to nodes as they came; one that was idle for a while may have been another again"
    stages = [path.name for path in (alone / "data").iterdir() if path.is_dir()]
    assert {"ingest", "tokens"} <= set(stages)
    for stage in stages:
        ours, theirs = ([path.read_bytes() for path in (run / "data" / stage).glob("*/manifest.json")] for run in (told["run"], alone))
        assert ours == theirs, stage


@pytest.mark.full
def test_a_whole_run_takes_nodes_of_each_pool_and_leaves_none(autoscaled: Any) -> None:
    told = autoscaled("whole", 2, {"data": DATA, "train": TRAIN, "evaluate": EVALUATE}, [], verb="run")
    assert told["code"] == 0, told["said"]
    counted = [count for _, count in told["seen"]]
    assert counted[0] == {} and counted[-1] == {}, counted
    assert {name: max(count.get(name, 0) for count in counted) for name in ("data", "train", "evaluate")} == {
        "data": 2,
        "train": 1,
        "evaluate": 1,
    }
    scores = [json.loads(path.read_text()) for path in sorted((told["run"] / "eval").glob("step-*/fast.json"))]
    assert [score["step"] for score in scores] == [0, 20] and all(score["validation_loss"] for score in scores)


@pytest.mark.full
@pytest.mark.parametrize("version", [2, 1])
def test_it_says_what_it_waits_for(version: int, autoscaled: Any) -> None:
    told = autoscaled(f"waits-{version}", version, {"spot": SPOT, "train": TRAIN}, ["spot"], until="waiting for nodes")
    assert "waiting for nodes: none has room for {" in told["said"], told["said"]
    assert "spot" in told["said"].partition("waiting for nodes")[2]
