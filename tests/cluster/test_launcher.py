"""Launcher files and the local script: Ray takes them, and what they start is closed, fenced and pooled."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.capacity import POOL_LABEL, growth
from headrace.cluster.launcher import document
from headrace.cluster.render import render
from headrace.cluster.spec import CLOUDS, Spec, load_spec
from headrace.cluster.validate import validate_text
from headrace.control.cluster import pools
from headrace.train.fit import POOL

EXAMPLE = Path(__file__).resolve().parents[2] / "jobs" / "configs" / "cluster.yaml"
MACHINES = ["local.head=10.0.0.1", "local.workers={data: [10.0.0.2, 10.0.0.3], train: [10.0.0.4], evaluate: [10.0.0.5]}"]
WORD = st.text("abcdefghij0123456789", min_size=1, max_size=12).map(lambda text: f"x{text}")


@st.composite
def specs(draw):
    """Specs for every cloud and for machines at hand, with machines that have no GPUs by their names."""
    gpus = draw(st.sampled_from([0, 1, 8]))
    instance = {
        "aws": "p5.48xlarge" if gpus else "m7i.large",
        "gcp": "g2-standard-4" if gpus else "n2-standard-4",
        "azure": "Standard_D4s_v5",
    }

    def pool(gpus):
        most = draw(st.integers(1, 2000))
        numbers = {"cpus": draw(st.integers(2, 256)), "memory_gib": draw(st.integers(5, 4000)), "disk_gib": draw(st.integers(1, 9000))}
        bounds = {"min": draw(st.integers(0, most)), "max": most, "spot": draw(st.booleans()), "idle_minutes": draw(st.floats(0.1, 600))}
        plain = {"aws": "m7i.large", "gcp": "n2-standard-4", "azure": "Standard_D4s_v5"}
        return numbers | bounds | {"gpus": gpus, "instance": instance if gpus else plain}

    values = yaml.safe_load(EXAMPLE.read_text())
    values |= {"name": draw(WORD), "data": pool(0), "train": pool(gpus), "evaluate": pool(draw(st.sampled_from([0, gpus])))}
    values["runs"] = draw(st.sampled_from(["s3://bucket/runs", "gs://bucket/a/b", "/mnt/shared"]))
    values["network"] = {"ssh_from": draw(st.lists(st.sampled_from(["10.0.0.0/8", "192.168.1.1/32", "fd00::/8"]), min_size=1, max_size=3))}
    values["aws"] |= {"subnets": draw(st.lists(WORD, min_size=1, max_size=4))}
    values["gcp"] |= {"project": draw(WORD)}
    values["azure"] |= {"machine_image": draw(st.sampled_from(["a:b:c:1.0", "/subscriptions/1/images/x"]))}
    values["local"] = draw(
        st.sampled_from([{"cpus": 3, "gpus": gpus}, {"head": "10.0.0.1", "workers": {"data": ["10.0.0.2"], "train": ["fd00::1"]}}])
    )
    return Spec.model_validate(values)


@settings(max_examples=15, deadline=None)
@given(specs(), st.sampled_from([*CLOUDS, "local"]))
def test_what_any_spec_makes_is_valid(spec, target):
    for name, text in render(spec, target).items():
        assert validate_text(text, name).lines() == []


@pytest.mark.parametrize("target", [*CLOUDS, "local"])
def test_ray_takes_the_file_as_it_is(target):
    from ray.autoscaler._private.util import prepare_config, validate_config

    (text,) = render(load_spec(EXAMPLE, target, MACHINES), target).values()
    prepared = prepare_config(copy.deepcopy(yaml.safe_load(text)))
    validate_config(prepared)
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == []  # nothing of Ray's defaults is left


@pytest.mark.parametrize("cloud", CLOUDS)
def test_node_types_are_the_pools_that_jobs_ask_for(cloud):
    values, _ = document(load_spec(EXAMPLE, cloud), cloud)
    types = values["available_node_types"]
    assert set(types) == {"head", *pools(2, 2)[1]} and POOL in types
    assert types["head"]["resources"] == {"CPU": 0}
    most = {"CPU": 30 * 16 + 8 * 96 + 2 * 8, "GPU": 8 * 8 + 2, "data": 30 * 16, "train": 64, "evaluate": 2}
    assert types["head"]["labels"] == growth(most)
    assert {name: kind["labels"] for name, kind in types.items() if name != "head"} == {name: {POOL_LABEL: name} for name in pools(2, 2)[1]}
    assert types["train"]["resources"] == {"CPU": 96, "GPU": 8, "train": 8}  # a worker asks for a CPU, a GPU and a train
    assert types["data"]["resources"] == {"CPU": 16, "data": 16}
    assert types["evaluate"]["resources"] == {"CPU": 8, "GPU": 1, "evaluate": 1}
    for name, kind in types.items():
        assert set(kind["resources"]) & {"data", "train", "evaluate"} == ({name} if name != "head" else set())
    assert types["train"]["max_workers"] * types["train"]["resources"]["train"] == values["metadata"]["training_workers"]


def test_spot_is_asked_for_in_each_cloud_s_words():
    spot, own = {}, {}
    for cloud in CLOUDS:
        types = document(load_spec(EXAMPLE, cloud), cloud)[0]["available_node_types"]
        spot[cloud], own[cloud] = types["data"]["node_config"], types["train"]["node_config"]
        assert "spot" not in json.dumps([own[cloud], types["head"]["node_config"]]).lower()
    assert spot["aws"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert spot["gcp"]["scheduling"]["provisioningModel"] == "SPOT"
    assert spot["azure"]["azure_arm_parameters"]["priority"] == "Spot"


def started(command, folder, address=""):
    """What `ray` gets when a shell runs a start command: its arguments and its environment; `hostname -I` says the address."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, body in {"ray": 'env > "$SEEN.env"; printf "%s\\n" "$@" > "$SEEN"', "hostname": f"echo '{address} '"}.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    seen = folder / "seen"
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": "/home/me", "SEEN": str(seen), "RAY_HEAD_IP": "10.9.9.9"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    if done.returncode:
        return done.stderr, {}
    return seen.read_text().splitlines(), dict(line.partition("=")[::2] for line in Path(f"{seen}.env").read_text().splitlines())


def test_a_shell_gives_ray_the_token_the_keepalive_and_the_flags(tmp_path):
    values, _ = document(load_spec(EXAMPLE, "aws"), "aws")
    limit = "ulimit -n 65536;"  # more than this machine may allow
    head, environment = started(values["head_start_ray_commands"][1].replace(limit, ""), tmp_path)
    assert {"start", "--head", "--num-cpus=0", "--dashboard-host=127.0.0.1", "--autoscaling-config=~/ray_bootstrap_config.yaml"} <= set(
        head
    )
    assert environment["RAY_AUTH_MODE"] == "token" and environment["RAY_AUTH_TOKEN_PATH"] == "/home/me/.ray/auth_token"
    assert environment["RAY_grpc_client_keepalive_time_ms"] == environment["RAY_grpc_client_keepalive_timeout_ms"] == "5000"
    assert int(environment["RAY_JOB_START_TIMEOUT_SECONDS"]) >= 3600 and int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60
    worker, environment = started(values["worker_start_ray_commands"][1].replace(limit, ""), tmp_path)
    assert worker == ["start", "--address=10.9.9.9:6379", "--object-spilling-directory=/mnt/spill"]
    assert environment["RAY_AUTH_MODE"] == "token" and environment["RAY_grpc_client_keepalive_time_ms"] == "5000"


def test_a_machine_at_hand_finds_its_pool_by_its_address(tmp_path):
    (text,) = render(load_spec(EXAMPLE, "local", MACHINES), "local").values()
    command = yaml.safe_load(text)["worker_start_ray_commands"][1].replace("ulimit -n 65536;", "")
    for address, cpus, gpus, resources in (
        ("10.0.0.3", 16, 0, {"data": 16}),
        ("10.0.0.4", 96, 8, {"train": 8}),
        ("10.0.0.5", 8, 1, {"evaluate": 1}),
    ):
        flags, environment = started(command, tmp_path, f"172.17.0.1 {address}")
        assert {f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--address=10.9.9.9:6379"} <= set(flags)
        assert json.loads(flags[-2].removeprefix("--resources=")) == resources
        assert flags[-1] == f"--labels={POOL_LABEL}={next(iter(resources))}"
        assert environment["RAY_AUTH_MODE"] == "token"
    assert "this machine belongs to no pool" in started(command, tmp_path, "10.0.0.33")[0]


def test_the_script_starts_a_closed_cluster_with_a_token_of_its_own(tmp_path):
    (text,) = render(load_spec(EXAMPLE, "local", [f"token={tmp_path}/hidden/token"]), "local").values()
    flags, environment = started(text, tmp_path)
    token = tmp_path / "hidden" / "token"
    assert token.stat().st_mode & 0o777 == 0o600 and len(token.read_text().strip()) == 64
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(token)
    cpus, resources = pools(4, 4)
    assert {"--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--num-cpus={cpus}", "--block"} <= set(flags)
    assert json.loads(flags[-1].removeprefix("--resources=")) == resources
    before = token.read_text()
    started(text, tmp_path)
    assert token.read_text() == before


@pytest.mark.parametrize("target", [*CLOUDS, "kuberay", "local"])
def test_no_secret_gets_into_a_file(target, tmp_path, monkeypatch):
    secret = "f00d" * 16
    (tmp_path / "token").write_text(secret)
    monkeypatch.setenv("RAY_AUTH_TOKEN", secret)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "k" * 40)
    for text in render(load_spec(EXAMPLE, target, [f"token={tmp_path}/token"]), target).values():
        assert secret not in text and "k" * 40 not in text
