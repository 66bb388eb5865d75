"""Validation without a cloud: what it reads, what it tells, and its exit code."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from headrace.cluster.render import render
from headrace.cluster.spec import load_spec
from headrace.cluster.validate import validate_files, validate_text
from headrace.config import ConfigError

EXAMPLE = Path(__file__).resolve().parents[2] / "jobs" / "configs" / "cluster.yaml"


def texts(target):
    return list(render(load_spec(EXAMPLE, target), target).values())


def edited(text, change):
    """The text with a change to its last document."""
    documents = list(yaml.safe_load_all(text))
    change(documents[-1])
    return yaml.safe_dump_all(copy.deepcopy(documents))


def told(text, name="file.yaml"):
    return {(mistake.place.split(":")[-1], mistake.rule): mistake.sentence for mistake in validate_text(text, name).mistakes}


def test_a_launcher_file_s_unknown_keys_and_wrong_types_are_all_told():
    def change(file):
        file["max_worker"] = 3
        file["available_node_types"]["data"]["resources"]["CPU"] = "16"
        file["available_node_types"]["train"]["min_worker"] = 1
        del file["provider"]["type"]

    found = told(edited(texts("gcp")[0], change))
    assert "'max_worker' was unexpected" in found[("document", "schema")]
    assert found[("available_node_types.data.resources.CPU", "schema")] == "'16': expected integer, got str"
    assert "min_worker" in found[("available_node_types.train", "schema")]
    assert "'type' is a required property" in found[("provider", "schema")]


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda file: file.update(head_node_type="boss"), "`head_node_type` must be one of"),
        (
            lambda file: (file.update(max_workers=5), file["available_node_types"]["data"].update(min_workers=6)),
            "smaller than the sum of `min_workers`",
        ),
        (lambda file: file["docker"].pop("container_name"), "container"),
        (lambda file: file["provider"].update(type="acme"), "acme"),
    ],
    ids=["head type", "min workers", "container", "provider"],
)
def test_what_ray_itself_checks_is_asked_of_ray(change, sentence):
    found = told(edited(texts("aws")[0], change))
    assert sentence in found[("document", "ray")]


def test_a_manifest_s_unknown_fields_and_wrong_types_are_all_told():
    def change(cluster):
        spec = cluster["spec"]
        group = spec["workerGroupSpecs"][0]
        group["template"]["spec"]["containers"][0]["imagee"] = "x"
        group["idleTimeoutSecond"] = 3
        group["maxReplicas"] = "3"
        spec["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
        del spec["headGroupSpec"]["template"]["spec"]["containers"][0]["name"]
        spec["autoscalerOptions"]["upscalingMode"] = "Fast"

    found = told(edited(texts("kuberay")[0], change))
    group = "spec.workerGroupSpecs.0"
    assert "did you mean 'image'?" in found[(f"{group}.template.spec.containers.0.imagee", "unknown-field")]
    assert "did you mean 'idleTimeoutSeconds'?" in found[(f"{group}.idleTimeoutSecond", "unknown-field")]
    for place in (f"{group}.maxReplicas", "spec.headGroupSpec.rayStartParams.num-cpus", "spec.headGroupSpec.template.spec.containers.0"):
        assert (place, "schema") in found
    assert ("spec.autoscalerOptions.upscalingMode", "schema") in found


def test_rules_in_cel_are_held():
    def change(job):
        job["spec"]["deletionStrategy"]["deletionRules"][0]["condition"] = {"ttlSeconds": 3}
        job["spec"]["deletionStrategy"]["deletionRules"][1]["condition"]["jobDeploymentStatus"] = "Failed"
        job["spec"]["deletionStrategy"]["onSuccess"] = {"policy": "DeleteCluster"}
        job["spec"]["managedBy"] = "me"

    found = told(edited(texts("kuberay")[1], change))
    rules = {place for place, rule in found if rule == "rule"}
    place = "spec.deletionStrategy"
    assert rules == {place, f"{place}.deletionRules.0.condition", f"{place}.deletionRules.1.condition", "spec.managedBy"}


def test_plain_objects_are_checked_and_unknown_ones_named():
    documents = list(yaml.safe_load_all(texts("kuberay")[0]))
    documents[0]["valu"] = 3
    documents[2]["spec"]["minAvailable"] = [1]
    documents[4]["spec"]["ingress"][0]["from"][0]["podSelecto"] = {}
    documents.insert(0, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
    checked = validate_text(yaml.safe_dump_all(copy.deepcopy(documents)), "file.yaml")
    assert [(mistake.place, mistake.rule) for mistake in checked.mistakes] == [
        ("1:document", "unknown-field"),
        ("3:spec.minAvailable", "schema"),
        ("5:spec.ingress.0.from.0", "unknown-field"),
    ]
    assert checked.unchecked == ("0:v1 ConfigMap is not known here",)


@pytest.mark.parametrize(
    "text, rule",
    [
        ("", "yaml"),
        ("a: [", "yaml"),
        ("[1, 2]", "yaml"),
        ("a: 1", "kind"),
        (EXAMPLE.read_text(), "kind"),
        ("apiVersion: ray.io/v1alpha1\nkind: RayCluster\n", "schema"),
        ("apiVersion: ray.io/v1\nkind: RayClusters\n", "schema"),
        ("cluster_name: 3\nprovider: 4\navailable_node_types: [1]\nhead_start_ray_commands: 7\nfile_mounts: x\ndocker: []\n", "schema"),
        (
            "apiVersion: ray.io/v1\nkind: RayJob\nspec: {deletionStrategy: 3, rayClusterSpec: {workerGroupSpecs: [3, {template: []}]}}\n",
            "schema",
        ),
    ],
)
def test_whatever_is_no_such_file_is_told_and_breaks_nothing(text, rule):
    assert rule in {mistake.rule for mistake in validate_text(text, "file.yaml").mistakes}


SECRETS = ["RAY_AUTH_TOKEN=abc", "AKIA" + "A" * 16, "-----BEGIN RSA PRIVATE KEY-----", "hf_" + "x" * 34, "0123456789abcdef" * 4]


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_a_secret_is_told_by_its_line_and_not_shown(secret):
    (mistake,) = [
        each for each in validate_text(f"cluster_name: x\nauth: {{ssh_user: '{secret}'}}\n", "f.yaml").mistakes if each.rule == "secret"
    ]
    assert mistake.place == "line 2" and secret not in mistake.sentence


def test_the_value_of_a_variable_that_is_named_as_a_secret_is_one(monkeypatch):
    monkeypatch.setenv("REGISTRY_PASSWORD", "correct horse battery")
    lines = validate_text("cluster_name: x\ndocker: {image: 'correct horse battery'}\n", "f.yaml").lines()
    (line,) = [each for each in lines if "[secret]" in each]
    assert "REGISTRY_PASSWORD" in line and "horse" not in line
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {auth_token: short}\n"
    assert [mistake.rule for mistake in validate_text(secret, "f.yaml").mistakes] == ["secret"]


def test_a_file_that_is_absent_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        validate_files([tmp_path / "none.yaml"])


def headrace(*arguments):
    return subprocess.run([sys.executable, "-m", "headrace.cli", "cluster", *map(str, arguments)], capture_output=True, text=True)


def test_the_verbs_make_files_and_tell_mistakes_with_exit_code_2(tmp_path):
    made = headrace("render", EXAMPLE, "--target", "aws", "--out", tmp_path, "name=mine", "--json")
    assert made.returncode == 0, made.stderr
    (file,) = json.loads(made.stdout)["files"]
    assert file == str(tmp_path / "mine-aws.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text(Path(file).read_text().replace("--num-cpus=0", "--num-cpus=8").replace("{CPU: 0}", "{CPU: 8}"))
    wrong = headrace("validate", file, bad)
    assert wrong.returncode == 2 and wrong.stdout == ""
    assert len(wrong.stderr.splitlines()) == 2 and wrong.stderr.count(f"{bad}: ") == 2 and "[head-cpu]" in wrong.stderr
    listed = headrace("validate", file, bad, "--json")
    report = json.loads(listed.stdout)
    assert listed.returncode == 2 and report["valid"] is False
    assert [len(each["mistakes"]) for each in report["files"]] == [0, 2]
    assert {"place", "rule", "sentence"} == set(report["files"][1]["mistakes"][0])


def test_what_a_spec_makes_is_checked_before_it_is_written(tmp_path):
    done = headrace("render", EXAMPLE, "--target", "aws", "--out", tmp_path / "out", "evaluate.gpus=0")
    assert done.returncode == 2 and "g6.2xlarge has GPUs, but the type declares none" in done.stderr
    assert not (tmp_path / "out").exists()
    both = headrace("render", EXAMPLE, "--target", "kuberay")
    kinds = [line.split()[1] for line in both.stdout.splitlines() if line.startswith("kind: ")]
    assert kinds == [
        "PriorityClass",
        "PriorityClass",
        "PodDisruptionBudget",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "RayCluster",
        "RayJob",
    ]
