"""What a cluster may grow to, from what Ray tells of its nodes."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from headrace.capacity import growth, most_resources, pool_selector
from headrace.config import ConfigError
from headrace.stage import data_slot
from headrace.train import fit

HEAD = {"Alive": True, "Resources": {"memory": 5.0}, "Labels": growth({"CPU": 96, "GPU": 16, "data": 30, "train": 16})}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The cluster's nodes as Ray tells of them; a test adds its own."""
    there: list[dict[str, Any]] = []

    def totals() -> dict[str, float]:
        found: dict[str, float] = {}
        for node in there:
            for name, amount in node["Resources"].items():
                found[name] = found.get(name, 0.0) + amount * node["Alive"]
        return found

    monkeypatch.setattr(ray, "nodes", lambda: there)
    monkeypatch.setattr(ray, "cluster_resources", totals)
    return there


def test_a_head_alone_stands_for_the_pools_that_it_declares(nodes: list[dict[str, Any]]) -> None:
    nodes.append(HEAD)
    assert most_resources() == {"memory": 5.0, "CPU": 96.0, "GPU": 16.0, "data": 30.0, "train": 16.0}
    assert data_slot() == {"data": 1} and pool_selector("data") == {"pool": "data"} and pool_selector("evaluate") == {}
    assert fit._resources(16) == (True, {"CPU": 1.0, "GPU": 1.0, "train": 1.0})
    with pytest.raises(ConfigError, match=r"17 training workers: the cluster has too little of train 17 \(has 16\)"):
        fit._resources(17)


def test_more_than_declared_may_be_there(nodes: list[dict[str, Any]]) -> None:
    worker = {"Alive": True, "Resources": {"CPU": 200.0, "data": 2.0}, "Labels": {"pool": "data"}}
    nodes.extend([HEAD, worker, {**worker, "Alive": False}])
    assert most_resources()["CPU"] == 200.0 and most_resources()["data"] == 30.0


def test_a_cluster_that_declares_nothing_is_what_it_is(nodes: list[dict[str, Any]]) -> None:
    nodes.append({"Alive": True, "Resources": {"CPU": 4.0}, "Labels": {"ray.io/node-id": "a"}})
    assert most_resources() == {"CPU": 4.0}
    assert data_slot() == {} and pool_selector("data") == {}
    nodes.append({"Alive": False, "Resources": {}, "Labels": growth({"data": 3})})
    assert data_slot() == {}, "of a head that is gone"
