"""Pods of a Ray cluster on Kubernetes: the same head and workers for a RayCluster, a RayJob and a RayService."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.capacity import POOL_LABEL, growth
from headrace.cluster.commands import HEAD, NODE, NOTICE, SPILL
from headrace.cluster.launcher import pool_resources, totals
from headrace.cluster.spec import Machine, Pool, Spec

LABEL = "headrace/cluster"  # on every pod of the cluster, whichever object made it
USER = 1000  # cluster/Dockerfile
AGENT_PORT, DASHBOARD_PORT, SERVE_PORT = 52365, 8265, 8000
STOP_S = 120  # between the notice that a pod goes and its end; training saves its state in it
SPOT = {  # the label of a spot node, and its value
    "gke": ("cloud.google.com/gke-spot", "true"),
    "eks": ("eks.amazonaws.com/capacityType", "SPOT"),
    "aks": ("kubernetes.azure.com/scalesetpriority", "spot"),
}
GPU = "nvidia.com/gpu"


def head_group(spec: Spec, pools: Mapping[str, Pool], config_map: str | None = None) -> dict[str, Any]:
    """The head: no CPUs for Ray, on demand, left alone by whatever tidies nodes up; `config_map` holds the run of a RayJob."""
    container = _container(spec, "ray-head", spec.head, HEAD) | {
        "ports": [
            {"containerPort": 6379, "name": "gcs"},
            {"containerPort": DASHBOARD_PORT, "name": "dashboard"},
            {"containerPort": SERVE_PORT, "name": "serve"},
        ],
        **_probes(DASHBOARD_PORT, "/api/gcs_healthz"),
    }
    volumes = _volumes(spec.head)
    if config_map:
        container["volumeMounts"].append({"mountPath": "/etc/headrace", "name": "run", "readOnly": True})
        volumes.append({"name": "run", "configMap": {"name": config_map}})
    pod = _pod(spec, container, volumes, priority=f"{spec.name}-keep", spot=False, gpus=0)
    if spec.kuberay.service_account:
        pod["serviceAccountName"] = spec.kuberay.service_account
    annotations = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
    return {
        "labels": growth(totals((pool.max, offer(spec, name, pool)) for name, pool in pools.items())),
        # The pod network reaches the dashboard, for the operator and the submitter; the token and the NetworkPolicy guard it.
        "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0", "object-spilling-directory": SPILL},
        "template": {"metadata": {"labels": {LABEL: spec.name}, "annotations": annotations}, "spec": pod},
    }


def offer(spec: Spec, name: str, pool: Pool) -> dict[str, int]:
    """What a pod of a pool offers to Ray: what its machine has beside its own needs."""
    within = pool.model_copy(update={"cpus": pool.cpus - spec.kuberay.reserve.cpus})
    return pool_resources(within.cpus, within.gpus, name, within.slots)


def worker_group(spec: Spec, name: str, pool: Pool) -> dict[str, Any]:
    """The workers of a pool; before a pod ends, its node is drained, so that training saves its state."""
    container = _container(spec, "ray-worker", pool, NODE) | {
        **_probes(AGENT_PORT, "/api/local_raylet_healthz"),
        "lifecycle": {
            "preStop": {"exec": {"command": ["sh", "-c", f'python -m {NOTICE} now --address="$RAY_ADDRESS" --seconds={STOP_S - 20}']}}
        },
    }
    priority = f"{spec.name}-{'keep' if name == 'train' else 'spare'}"
    pod = _pod(spec, container, _volumes(pool), priority=priority, spot=pool.spot, gpus=pool.gpus)
    pod |= {"terminationGracePeriodSeconds": STOP_S, "automountServiceAccountToken": False}
    if spec.kuberay.service_account:
        pod["serviceAccountName"] = spec.kuberay.service_account
    return {
        "groupName": name,
        "minReplicas": pool.min,
        "maxReplicas": pool.max,
        "replicas": pool.min,
        "idleTimeoutSeconds": round(pool.idle_minutes * 60),
        "labels": {POOL_LABEL: name},
        "resources": {resource: str(count) for resource, count in offer(spec, name, pool).items()},
        "rayStartParams": {"object-spilling-directory": SPILL},
        "template": {"metadata": {"labels": {LABEL: spec.name}}, "spec": pod},
    }


def submitter(spec: Spec) -> dict[str, Any]:
    """The pod that hands a RayJob's command to the head and follows its log."""
    small = {"cpu": "500m", "memory": "1Gi"}
    container = {"name": "ray-job-submitter", "image": spec.image, "resources": {"requests": small, "limits": small}, **_closed()}
    pod = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": _user(), "containers": [container]}
    return {"metadata": {"labels": {LABEL: spec.name}}, "spec": pod}


def _container(spec: Spec, name: str, machine: Machine, environment: dict[str, str]) -> dict[str, Any]:
    reserve = spec.kuberay.reserve
    amounts = {"cpu": str(machine.cpus - reserve.cpus), "memory": f"{machine.memory_gib - reserve.memory_gib}Gi"}
    if isinstance(machine, Pool) and machine.gpus:
        amounts[GPU] = str(machine.gpus)
    return {
        "name": name,
        "image": spec.image,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"requests": amounts, "limits": dict(amounts)},
        **_closed(),
        "volumeMounts": [{"mountPath": "/dev/shm", "name": "shm"}, {"mountPath": SPILL, "name": "spill"}],
    }


def _closed() -> dict[str, Any]:
    return {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}


def _user() -> dict[str, Any]:
    return {"runAsNonRoot": True, "runAsUser": USER, "fsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"}}


def _volumes(machine: Machine) -> list[dict[str, Any]]:
    # Ray's object store takes 30 % of the memory as far as /dev/shm has room; a container's own has 64 MB.
    shared = max(1, round(machine.memory_gib * 0.35))
    return [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared}Gi"}},
        {"name": "spill", "emptyDir": {"sizeLimit": f"{machine.disk_gib}Gi"}},
    ]


def _probes(port: int, path: str) -> dict[str, Any]:
    """Patient ones: training fills every core, and a pod that is restarted for being busy loses a node."""
    asked = {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 5, "periodSeconds": 10}
    return {
        "startupProbe": {**asked, "failureThreshold": 60},
        "readinessProbe": {**asked, "failureThreshold": 6},
        "livenessProbe": {**asked, "failureThreshold": 30},
    }


def _pod(spec: Spec, container: dict[str, Any], volumes: list[dict[str, Any]], *, priority: str, spot: bool, gpus: int) -> dict[str, Any]:
    tolerations = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}] if gpus else []
    pod = {
        "restartPolicy": "Never",  # the autoscaler replaces nodes; a pod that comes back would be another node under the same name
        "priorityClassName": priority,
        "securityContext": _user(),
        "containers": [container],
        "volumes": volumes,
    }
    if spec.kuberay.platform:
        key, value = SPOT[spec.kuberay.platform]
        term = {"matchExpressions": [{"key": key, "operator": "In" if spot else "NotIn", "values": [value]}]}
        pod["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
        tolerations += [{"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}] if spot else []
    return pod | ({"tolerations": tolerations} if tolerations else {})
