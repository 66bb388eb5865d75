"""The spec: what it refuses, all of it at once, and what a target needs of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from headrace.cluster.spec import TARGETS, load_spec
from headrace.config import ConfigError

EXAMPLE = Path(__file__).resolve().parents[2] / "jobs" / "configs" / "cluster.yaml"


def refused(target, *overrides, path=EXAMPLE):
    with pytest.raises(ConfigError) as error:
        load_spec(path, target, overrides)
    return str(error.value).splitlines()


@pytest.mark.parametrize("target", TARGETS)
def test_the_example_has_what_every_target_needs(target):
    assert load_spec(EXAMPLE, target).train.gang == 64


def test_what_is_left_out_has_a_value(tmp_path):
    values = yaml.safe_load(EXAMPLE.read_text())
    least = {key: values[key] for key in ("name", "image", "runs")}
    machine = {"cpus": 8, "memory_gib": 32}
    path = tmp_path / "least.yaml"
    path.write_text(yaml.safe_dump(least | {"head": machine, **{pool: machine | {"max": 2} for pool in ("data", "train", "evaluate")}}))
    spec = load_spec(path, "kuberay")
    assert (spec.train.slots, spec.train.gang, spec.evaluate.slots, spec.data.min, spec.data.spot) == (8, 16, 1, 0, False)
    assert refused("aws", path=path) == [
        f"{path}: aws: required for --target aws, but absent; jobs/configs/cluster.yaml shows its keys",
        *(
            f"{path}: {name}.instance.aws: required for --target aws, but absent; name the type of machine to start"
            for name in ("head", "data", "train", "evaluate")
        ),
    ]


def test_all_mistakes_are_told_at_once():
    lines = refused("aws", "name=Big Cluster", "image=headrace:latest", "data.min=40", "train.cpus=none", "evaluate.maxx=3", "aws.region=")
    for place in ("name = 'Big Cluster'", "image = 'headrace:latest'", "min = 40 is above max = 30", "train.cpus = 'none'", "aws.region"):
        assert any(place in line for line in lines), place
    assert any("evaluate.maxx: unknown key; did you mean 'max'?" in line for line in lines)


def test_a_group_that_does_not_fit_is_refused_with_the_nodes_that_it_needs():
    assert any("workers = 65 do not fit on max = 8 nodes of 8 each; set max to 9" in line for line in refused("aws", "train.workers=65"))
    assert load_spec(EXAMPLE, "aws", ["train.workers=64"]).train.gang == 64


@pytest.mark.parametrize("block", ["0.0.0.0/0", "::/0", "10.0.0.300/8", "office"])
def test_ssh_is_let_in_from_named_blocks_alone(block):
    assert any("network.ssh_from" in line for line in refused("aws", f"network.ssh_from=[{block!r}]"))


@pytest.mark.parametrize(
    "target, override, place",
    [
        ("kuberay", "runs=/shared/runs", "runs = '/shared/runs': a pod's disk goes with the pod"),
        ("kuberay", "kuberay.reserve.cpus=8", "evaluate: 8 cpus and 32 GiB leave nothing beside kuberay.reserve"),
        ("local", "local.head=10.0.0.1", "local.workers: no machine is named"),
        ("local", "local={head: 10.0.0.1, workers: {data: [10.0.0.1]}}", "local: 10.0.0.1 is named more than once"),
        ("azure", "azure.machine_image=ubuntu", "azure.machine_image = 'ubuntu': expected publisher:offer:sku:version"),
    ],
)
def test_what_a_target_cannot_do_is_refused_for_it_alone(target, override, place):
    assert any(place in line for line in refused(target, override))
    other = "gcp" if target != "gcp" else "aws"
    assert load_spec(EXAMPLE, other, [override])


def test_a_spec_that_is_absent_is_told_with_where_one_is(tmp_path):
    assert refused("aws", path=tmp_path / "c.yaml") == [
        f"{tmp_path}/c.yaml: no such file; jobs/configs/cluster.yaml is a commented spec to start from."
    ]


def test_a_credential_is_refused_and_not_shown(monkeypatch):
    secret = "s3cr3t" * 8
    monkeypatch.setenv("MY_API_KEY", secret)
    lines = refused("aws", f"runs=s3://bucket/{secret}")
    assert any("runs: it holds the value of MY_API_KEY" in line for line in lines)
    assert secret not in "\n".join(lines)


@pytest.mark.parametrize("value", ["$(reboot)", "a;reboot", "a b", "'", "`id`", "a\nb"])
@pytest.mark.parametrize("field", ["name", "runs", "token", "aws.security_group", "local.ssh_user", "gcp.project"])
def test_nothing_that_a_shell_would_run_gets_into_a_file(field, value):
    assert refused("aws", f"{field}={value!r}")
