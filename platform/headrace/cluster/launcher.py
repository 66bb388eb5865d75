"""The file of Ray's cluster launcher (`ray up`), for machines of a cloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from headrace.capacity import POOL_LABEL, growth
from headrace.cluster import clouds
from headrace.cluster.commands import SPILL, TOKEN_FILE, head_command, notice_command, worker_command
from headrace.cluster.spec import Spec
from headrace.cluster.yaml_text import Place, write

HEAD = "head"
CONFIG_FLAG = "--autoscaling-config=~/ray_bootstrap_config.yaml"


def render(spec: Spec, cloud: str) -> str:
    """The launcher's YAML."""
    values, comments = document(spec, cloud)
    return write(values, comments, _header(spec, cloud))


def document(spec: Spec, cloud: str) -> tuple[dict[str, Any], dict[Place, str]]:
    """The launcher's values, and the comments for who reads them."""
    provider, comments = clouds.provider(spec, cloud)
    offers = {name: pool_resources(pool.cpus, pool.gpus, name, pool.slots) for name, pool in spec.pools.items()}
    types: dict[str, dict[str, Any]] = {
        HEAD: {
            "resources": {"CPU": 0},
            "labels": growth(totals((spec.pools[name].max, offer) for name, offer in offers.items())),
            "node_config": clouds.node_config(spec, cloud, spec.head, head=True),
        }
    }
    for name, pool in spec.pools.items():
        types[name] = {
            "min_workers": pool.min,
            "max_workers": pool.max,
            "idle_timeout_s": round(pool.idle_minutes * 60),
            "resources": offers[name],
            "labels": {POOL_LABEL: name},
            "node_config": clouds.node_config(spec, cloud, pool, head=False),
        }
    values = {
        "cluster_name": spec.name,
        "max_workers": sum(pool.max for pool in spec.pools.values()),
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": max(pool.idle_minutes for pool in spec.pools.values()),
        "metadata": {"training_workers": spec.train.gang, "runs": spec.runs},
        "provider": provider,
        "auth": {"ssh_user": clouds.ssh_user(spec, cloud)},
        **containers(spec),
        "head_node_type": HEAD,
        "available_node_types": types,
        **starts(spec, worker_command(), notice_command(cloud)),
    }
    comments[("max_workers",)] = "So many that the training pool always gets its share."
    comments[("idle_timeout_minutes",)] = (
        "For the older autoscaler (RAY_UP_enable_autoscaler_v2=0), which knows no idle_timeout_s of a node type."
    )
    comments[("available_node_types", HEAD)] = (
        "On demand and without CPUs: it keeps the cluster's state and the drivers of jobs, and no stage runs on it."
    )
    comments[("available_node_types", HEAD, "labels")] = "How far the cluster grows: jobs learn it here before the first worker is there."
    comments[("available_node_types", "train")] = (
        f"As many as a group of {spec.train.gang} training workers needs: they start together or not at all."
    )
    return values, comments


def pool_resources(cpus: int, gpus: int, name: str, slots: int) -> dict[str, int]:
    """What a node of a pool offers: its slots are of a resource that the stages of other pools never ask for."""
    return {"CPU": cpus, **({"GPU": gpus} if gpus else {}), name: slots}


def totals(types: Iterable[tuple[int, Mapping[str, int]]]) -> dict[str, int]:
    """What a cluster has at its largest, from the most nodes and the resources of each of its types."""
    found: Counter[str] = Counter()
    for nodes, resources in types:
        found.update({resource: nodes * count for resource, count in resources.items()})
    return {resource: total for resource, total in found.items() if total}


def containers(spec: Spec) -> dict[str, Any]:
    """How nodes run the image: its folders, and the token's file, which goes to each of them by SSH."""
    shared = [f"-v {spec.runs}:{spec.runs}"] if spec.runs.startswith("/") else []
    return {
        "docker": {
            "image": spec.image,
            "container_name": spec.name,
            "run_options": ["--ulimit nofile=65536:65536", f"-v {SPILL}:{SPILL}", *shared],
        },
        "file_mounts": {TOKEN_FILE: spec.token},
    }


def starts(spec: Spec, worker: str, *further: str) -> dict[str, Any]:
    """Everything that Ray's defaults would fill in otherwise: they install a nightly build and open the dashboard."""
    return {
        "initialization_commands": [f"sudo mkdir -p {SPILL} && sudo chmod 1777 {SPILL}"],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": ["ray stop", head_command(CONFIG_FLAG)],
        "worker_start_ray_commands": ["ray stop", worker, *further],
    }


def _header(spec: Spec, cloud: str) -> str:
    file = f"{spec.name}-{cloud}.yaml"
    return f"""
{spec.name} on {cloud}: made by `headrace cluster render --target {cloud}`; change the spec, not this file.

  (umask 077; python -c 'import secrets; print(secrets.token_hex(32))' > {spec.token})     once
  ray up {file}; ray dashboard {file}     forwards the dashboard from the head's loopback to port 8265
  RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={spec.token} headrace submit RUN.yaml out={spec.runs}/NAME --address http://127.0.0.1:8265
  ray down {file}

The head starts machines, so it has the cloud's client (cluster/requirements.in). A local NVMe disk is worth mounting at {SPILL}.
"""
