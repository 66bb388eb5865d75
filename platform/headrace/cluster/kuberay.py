"""Manifests for KubeRay 1.7: a RayCluster that stays, a RayJob for one run, a RayService, and what guards them.

What the operator refuses although its schema allows it is kept to (ray-operator/controllers/ray/utils/validation.go): `deletionRules`
exclude `shutdownAfterJobFinishes`, and with autoscaling there is no `DeleteWorkers`. Its own `networkPolicy` is behind a feature gate
that is off by default, so the policy here is a plain one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from headrace.cluster.pods import DASHBOARD_PORT, LABEL, SERVE_PORT, head_group, offer, submitter, worker_group
from headrace.cluster.spec import Pool, Spec
from headrace.cluster.yaml_text import Place, write

RAY_VERSION = "2.60.0"  # of cluster/requirements.lock

Document = tuple[dict[str, Any], dict[Place, str], str]  # values, comments, header


def render(spec: Spec) -> dict[str, str]:
    """Files by name; each can be applied alone."""
    guards = [write(*document) for document in base(spec)]
    kinds = {"cluster": cluster(spec), "job": job(spec), **({"serve": service(spec)} if spec.serve else {})}
    return {f"{spec.name}-kuberay-{kind}.yaml": "---\n".join([*guards, write(*document)]) for kind, document in kinds.items()}


def base(spec: Spec) -> list[Document]:
    """What guards the pods: priorities, no eviction of what cannot be lost, no visitors."""
    space = spec.kuberay.namespace
    secret = f"""
{spec.name} under KubeRay 1.7: made by `headrace cluster render --target kuberay`; change the spec, not this file.

The token is a secret that you make once; it stands in no file here:
  kubectl create namespace {space}
  python -c 'import secrets; print(secrets.token_hex(32), end="")' | kubectl -n {space} create secret generic {spec.name}-token \\
    --from-file=auth_token=/dev/stdin
"""
    return [
        (_priority(f"{spec.name}-keep", 1000, "PreemptLowerPriority", "The head and training."), {}, secret),
        (_priority(f"{spec.name}-spare", 100, "Never", "Data and evaluation: a lost pod is done again."), {}, ""),
        (
            _budget(spec, "head", {"ray.io/node-type": "head"}, 1),
            {},
            "No voluntary eviction of the head: with it goes everything that runs.",
        ),
        (
            _budget(spec, "train", {"ray.io/group": "train"}, spec.train.max),
            {},
            "Nor of training: a group that loses one worker starts again.",
        ),
        (
            _network_policy(spec),
            {},
            "Nobody but the cluster's own pods and the operator comes in; needs a network plugin that enforces policies.",
        ),
    ]


def cluster(spec: Spec) -> Document:
    """A cluster that stays, for `headrace submit`."""
    values = _object(spec, "ray.io/v1", "RayCluster", spec.name) | {"spec": _cluster_spec(spec, spec.pools)}
    header = f"""
A cluster that stays. Runs are submitted through a forwarded port:
  kubectl -n {spec.kuberay.namespace} port-forward service/{spec.name}-head-svc {DASHBOARD_PORT}
  RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE headrace submit RUN.yaml out={spec.runs}/NAME --address http://127.0.0.1:{DASHBOARD_PORT}
"""
    return values, _comments(spec, ("spec",)), header


def job(spec: Spec) -> Document:
    """One run with a cluster of its own; an attempt that fails is followed by one that goes on where it stopped."""
    name = f"{spec.name}-{spec.kuberay.run}"
    # A job's RAY_ADDRESS is the GCS, and would stand in for the dashboard's address that the driver is told.
    command = (
        f"env -u RAY_ADDRESS headrace run /etc/headrace/run.yaml out={spec.runs}/{name} cluster.address=http://127.0.0.1:{DASHBOARD_PORT}"
    )
    values = _object(spec, "ray.io/v1", "RayJob", name) | {
        "spec": {
            "entrypoint": command,
            "submissionMode": "K8sJobMode",
            "backoffLimit": 10,
            "preRunningDeadlineSeconds": 7200,
            "activeDeadlineSeconds": spec.kuberay.deadline_hours * 3600,
            "deletionStrategy": {
                "deletionRules": [
                    {"policy": "DeleteCluster", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 600}},
                    {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 3600}},
                ]
            },
            "submitterPodTemplate": submitter(spec),
            "rayClusterSpec": _cluster_spec(spec, spec.pools, config_map=name),
        }
    }
    header = f"""
One run: a cluster is made for it, and taken away behind it. Its configuration is a ConfigMap; another run has another `kuberay.run`:
  kubectl -n {spec.kuberay.namespace} create configmap {name} --from-file=run.yaml
"""
    comments = _comments(spec, ("spec", "rayClusterSpec")) | {
        ("spec", "backoffLimit"): "Each attempt gets a new cluster and goes on from what the last one committed.",
        ("spec", "preRunningDeadlineSeconds"): "Waiting for machines is no failure.",
        ("spec", "activeDeadlineSeconds"): "After this the run is ended.",
        ("spec", "deletionStrategy"): "A failed cluster stays for an hour, to be looked at.",
    }
    return values, comments, header


def service(spec: Spec) -> Document:
    """A Ray Serve application of the user's, on the machines of the evaluation pool alone: Serve asks for bare CPUs and GPUs."""
    assert spec.serve
    application = {
        "name": spec.name,
        "import_path": spec.serve.import_path,
        "route_prefix": "/",
        "args": {"model": spec.serve.model, "replicas": spec.serve.replicas},
    }
    serving = {
        "http_options": {"host": "0.0.0.0", "port": SERVE_PORT},  # of the pod; the NetworkPolicy says who reaches it
        "applications": [application],
    }
    body = {"serveConfigV2": yaml.safe_dump(serving, sort_keys=False), "rayClusterConfig": _cluster_spec(spec, {"evaluate": spec.evaluate})}
    values = _object(spec, "ray.io/v1", "RayService", f"{spec.name}-serve") | {"spec": body}
    header = (
        "A served model, on the machines of the evaluation pool. The application is yours, in the image; it gets `model` and `replicas`."
    )
    return values, {}, header


def _cluster_spec(spec: Spec, pools: Mapping[str, Pool], config_map: str | None = None) -> dict[str, Any]:
    small = {"cpu": "500m", "memory": "1Gi"}
    return {
        "rayVersion": RAY_VERSION,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "upscalingMode": "Default",
            "idleTimeoutSeconds": round(max(pool.idle_minutes for pool in pools.values()) * 60),
            "resources": {"requests": small, "limits": small},
        },
        "authOptions": {"mode": "token", "secretName": f"{spec.name}-token"},
        "headGroupSpec": head_group(spec, pools, config_map),
        "workerGroupSpecs": [worker_group(spec, name, pool) for name, pool in pools.items()],
    }


def _comments(spec: Spec, place: Place) -> dict[Place, str]:
    train = list(spec.pools).index("train")
    workers = spec.train.max * offer(spec, "train", spec.train)["train"]
    return {
        (
            *place,
            "headGroupSpec",
        ): "On demand and without CPUs for Ray: it keeps the cluster's state and the drivers of jobs, and no stage runs on it.",
        (
            *place,
            "workerGroupSpecs",
            train,
            "maxReplicas",
        ): f"As many as a group of {workers} training workers needs: they start together.",
    }


def _object(spec: Spec, api: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": spec.kuberay.namespace, "labels": {LABEL: spec.name}}}


def _priority(name: str, value: int, preemption: str, description: str) -> dict[str, Any]:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "preemptionPolicy": preemption,
        "description": description,
    }


def _budget(spec: Spec, name: str, labels: dict[str, str], pods: int) -> dict[str, Any]:
    # Of pods that no Deployment owns, Kubernetes knows no maximum: only a minimum can be asked for.
    return _object(spec, "policy/v1", "PodDisruptionBudget", f"{spec.name}-{name}") | {
        "spec": {"minAvailable": pods, "selector": {"matchLabels": {LABEL: spec.name, **labels}}}
    }


def _network_policy(spec: Spec) -> dict[str, Any]:
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": spec.kuberay.operator_namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    own = {"podSelector": {"matchLabels": {LABEL: spec.name}}}
    ingress: list[dict[str, Any]] = [{"from": [own]}, {"from": [operator], "ports": [{"port": DASHBOARD_PORT}, {"port": SERVE_PORT}]}]
    if spec.serve:  # the namespace's pods may ask the model
        ingress.append({"from": [{"podSelector": {}}], "ports": [{"port": SERVE_PORT}]})
    return _object(spec, "networking.k8s.io/v1", "NetworkPolicy", spec.name) | {
        "spec": {"podSelector": {"matchLabels": {LABEL: spec.name}}, "policyTypes": ["Ingress"], "ingress": ingress}
    }
