"""KubeRay's manifests: valid by the definitions and the operator's own rules, and guarded."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.capacity import growth
from headrace.cluster import crds, kuberay
from headrace.cluster.pods import LABEL
from headrace.cluster.spec import Spec, load_spec
from headrace.cluster.validate import validate_text

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "jobs" / "configs" / "cluster.yaml"
SERVE = "serve={import_path: 'app:app', model: 's3://bucket/model'}"
SHA256 = {  # of the files as KubeRay's commit feeaf72f has them, compressed
    "rayclusters": "062ba78df0b6da2bc230b52caa1bd357a6273896a74250cb17f417840d86c0bc",
    "raycronjobs": "c84972c8b284103b0a07018b7c3aac6ff19d34805b255e31bed744868d374de3",
    "rayjobs": "fc1a6a214f1d69ac5fbb1940b2026373a983e24f80c5824346ef6f5302f61e7d",
    "rayservices": "3da1c1f3ef8b0d99a46f115aec480637d782ab58a9efc081c9081c5778a46889",
}


def documents(*overrides):
    """By file's last word: the documents of it."""
    files = kuberay.render(load_spec(EXAMPLE, "kuberay", overrides))
    return {name.removesuffix(".yaml").split("-")[-1]: list(yaml.safe_load_all(text)) for name, text in files.items()}


def test_the_definitions_are_kuberay_s_own():
    assert {name.stem for name in crds.FOLDER.glob("*.yaml.zst")} == {f"ray.io_{plural}.yaml" for plural in SHA256}
    for plural, digest in SHA256.items():
        assert hashlib.sha256((crds.FOLDER / f"ray.io_{plural}.yaml.zst").read_bytes()).hexdigest() == digest
    assert "Apache License" in (crds.FOLDER / "NOTICE").read_text()


def test_every_rule_of_the_definitions_is_mirrored_or_about_updates():
    def rules(node):
        if isinstance(node, dict):
            yield from (each["rule"] for each in node.get("x-kubernetes-validations", ()))
            for item in node.values():
                yield from rules(item)
        elif isinstance(node, list):
            for item in node:
                yield from rules(item)

    found = {rule for kind in crds.KINDS for rule in rules(crds.schema(kind))}
    assert {rule for rule in found if crds.OF_UPDATES not in rule} == set(crds.CEL)


def test_each_file_stands_alone_and_is_valid():
    found = documents(SERVE)
    assert {name: [each["kind"] for each in kinds][-1] for name, kinds in found.items()} == {
        "cluster": "RayCluster",
        "job": "RayJob",
        "serve": "RayService",
    }
    assert set(documents()) == {"cluster", "job"}
    for kinds in found.values():
        assert [each["kind"] for each in kinds][:-1] == [
            "PriorityClass",
            "PriorityClass",
            "PodDisruptionBudget",
            "PodDisruptionBudget",
            "NetworkPolicy",
        ]


@st.composite
def specs(draw):
    def pool():
        most = draw(st.integers(1, 500))
        numbers = {"cpus": draw(st.integers(2, 256)), "memory_gib": draw(st.integers(5, 4000)), "gpus": draw(st.sampled_from([0, 1, 8]))}
        return numbers | {
            "min": draw(st.integers(0, most)),
            "max": most,
            "spot": draw(st.booleans()),
            "idle_minutes": draw(st.floats(0.1, 600)),
        }

    values = yaml.safe_load(EXAMPLE.read_text())
    values |= {"data": pool(), "train": pool(), "evaluate": pool(), "name": draw(st.sampled_from(["a", "a" * 30, "x-1"]))}
    values["kuberay"] = {
        "platform": draw(st.sampled_from(["gke", "eks", "aks", None])),
        "service_account": draw(st.sampled_from([None, "me"])),
    }
    values["serve"] = draw(st.sampled_from([None, {"import_path": "a.b:c", "model": "gs://b/m", "replicas": 3}]))
    return Spec.model_validate(values)


@settings(max_examples=8, deadline=None)
@given(specs())
def test_what_any_spec_makes_is_valid(spec):
    for name, text in kuberay.render(spec).items():
        checked = validate_text(text, name)
        assert checked.lines() == [] and not checked.unchecked


def test_the_head_runs_no_stage_and_stays_where_it_is():
    for kinds in documents().values():
        spec = kinds[-1]["spec"]
        cluster = spec.get("rayClusterSpec") or spec
        head = cluster["headGroupSpec"]
        assert head["rayStartParams"]["num-cpus"] == "0"
        assert head["template"]["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        assert cluster["authOptions"] == {"mode": "token", "secretName": "headrace-token"}
        assert cluster["autoscalerOptions"]["version"] == "v2"
        assert not [each for each in kinds if each["kind"] == "Secret"]
        groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
        most = {"CPU": 30 * 15 + 8 * 95 + 2 * 7, "GPU": 8 * 8 + 2, "data": 30 * 15, "train": 64, "evaluate": 2}
        assert head["labels"] == growth(most)
        assert groups["train"]["resources"] == {"CPU": "95", "GPU": "8", "train": "8"}
        assert groups["data"]["resources"] == {"CPU": "15", "data": "15"}
        spot = {name: "gke-spot" in json.dumps(group["template"]["spec"].get("tolerations", [])) for name, group in groups.items()}
        assert spot == {"data": True, "train": False, "evaluate": True}
        for group in [head, *groups.values()]:
            assert group["template"]["metadata"]["labels"] == {LABEL: "headrace"}
            container = group["template"]["spec"]["containers"][0]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
            assert {"name": "RAY_grpc_client_keepalive_time_ms", "value": "5000"} in container["env"]
            assert group["template"]["spec"]["securityContext"]["runAsNonRoot"]


def test_a_run_is_tried_again_and_cleaned_up_in_the_way_that_the_operator_takes():
    spec = documents()["job"][-1]["spec"]
    assert spec["backoffLimit"] == 10 and "shutdownAfterJobFinishes" not in spec
    assert [(rule["policy"], rule["condition"]["jobStatus"]) for rule in spec["deletionStrategy"]["deletionRules"]] == [
        ("DeleteCluster", "SUCCEEDED"),
        ("DeleteCluster", "FAILED"),
    ]
    assert "out=s3://my-bucket/runs/headrace-run" in spec["entrypoint"] and spec["entrypoint"].startswith(
        "env -u RAY_ADDRESS headrace run "
    )
    mounts = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"mountPath": "/etc/headrace", "name": "run", "readOnly": True} in mounts
    assert spec["submitterPodTemplate"]["metadata"]["labels"] == {LABEL: "headrace"}  # or the NetworkPolicy keeps it out


def test_only_the_cluster_and_the_operator_come_in_and_to_a_served_model_its_namespace():
    rules = documents()["cluster"][4]["spec"]["ingress"]
    assert rules[0] == {"from": [{"podSelector": {"matchLabels": {LABEL: "headrace"}}}]}
    assert [port["port"] for port in rules[1]["ports"]] == [8265, 8000] and len(rules) == 2
    assert documents(SERVE)["cluster"][4]["spec"]["ingress"][2] == {"from": [{"podSelector": {}}], "ports": [{"port": 8000}]}


def test_the_manifests_name_the_image_s_version_of_ray():
    (pinned,) = [line for line in (ROOT / "cluster" / "requirements.lock").read_text().splitlines() if line.startswith("ray==")]
    assert pinned.split()[0] == f"ray=={kuberay.RAY_VERSION}"


def test_the_definitions_are_installed_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["headrace"]
    package = crds.FOLDER.parents[1]
    for path in crds.FOLDER.iterdir():
        assert any(path in package.glob(pattern) for pattern in patterns), path


def test_a_served_model_takes_no_node_of_data_or_training():
    spec = documents(SERVE)["serve"][-1]["spec"]
    assert [group["groupName"] for group in spec["rayClusterConfig"]["workerGroupSpecs"]] == ["evaluate"]
    assert spec["rayClusterConfig"]["headGroupSpec"]["labels"] == growth({"CPU": 14, "GPU": 2, "evaluate": 2})
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    assert application["import_path"] == "app:app" and application["args"] == {"model": "s3://bucket/model", "replicas": 1}
