"""Rules for a launcher's file that Ray itself does not know: what makes a cluster open, lossy, or stuck."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from headrace.capacity import growth
from headrace.cluster.launcher import totals
from headrace.cluster.mistakes import Mistake, at, listed, mapping
from headrace.cluster.shell import environment, flag, limit_mistakes, start_mistakes, starts_ray

POOLS = ("data", "train", "evaluate")
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
GPU_MACHINES = re.compile(r"^(p[3-9]|g[4-9])[a-z0-9-]*\.|^(a[2-9]|g[2-9])-|^Standard_N[CDV]")
EVERYWHERE = ("0.0.0.0/0", "::/0")


def launcher_mistakes(config: dict[str, Any]) -> Iterator[Mistake]:
    """Every mistake in a launcher's file as it was written, before Ray filled anything in."""
    cloud = at(config, "provider", "type")
    yield from _commands(config)
    yield from _image(config)
    yield from _token(config)
    if cloud != "local":  # whose machines have no types, and are not started
        yield from _pools(config)
        yield from _growth(config)
        yield from _head(config)
        yield from _network(config, cloud)


def _commands(config: dict[str, Any]) -> Iterator[Mistake]:
    for key in ("setup_commands", "head_setup_commands"):
        commands = config.get(key)
        if commands is None:
            yield Mistake(
                key, "setup", f"absent, so Ray installs a nightly build by its default {key}; write `{key}: []`, the image holds everything"
            )
        elif any("ray-wheels/latest" in str(command) for command in listed(commands)):
            yield Mistake(key, "setup", "installs a nightly build of Ray; nodes must have the one of the image: []")
    inherited = environment(" ".join(str(option) for option in listed(at(config, "docker", "run_options"))))
    for key, head in (("head_start_ray_commands", True), ("worker_start_ray_commands", False)):
        found = [(index, str(command)) for index, command in enumerate(listed(config.get(key))) if starts_ray(str(command))]
        if not found:
            yield Mistake(
                key,
                "start",
                "no `ray start` in it, so Ray's default opens the dashboard to every address; `headrace cluster render` writes one",
            )
        for index, command in found:
            yield from start_mistakes(command, f"{key}.{index}", head=head, inherited=inherited)
            yield from limit_mistakes(command, f"{key}.{index}")
            if head and "--autoscaling-config" not in command:
                yield Mistake(
                    f"{key}.{index}", "start", "the head would start no worker; add --autoscaling-config=~/ray_bootstrap_config.yaml"
                )
            yield from _shared_memory(config, f"{key}.{index}", command)


def _shared_memory(config: dict[str, Any], place: str, command: str) -> Iterator[Mistake]:
    store = flag(command, "object-store-memory")
    shared = re.search(
        r"--shm-size[= ](\d+)([bkmg]?)", " ".join(str(option) for option in listed(at(config, "docker", "run_options"))).lower()
    )
    if store and store.isdigit() and shared:
        size = int(shared.group(1)) << {"": 0, "b": 0, "k": 10, "m": 20, "g": 30}[shared.group(2)]
        if int(store) > size:
            yield Mistake(
                place, "shm", f"--object-store-memory={store} is above --shm-size ({size} bytes); leave both out, Ray sizes them alike"
            )


def _image(config: dict[str, Any]) -> Iterator[Mistake]:
    docker = mapping(config.get("docker"))
    images = {key: str(docker[key]) for key in ("image", "head_image", "worker_image") if docker.get(key)}
    if not images:
        yield Mistake(
            "docker.image", "image", "absent: nodes would run whatever their machine has; name an image by digest (NAME@sha256:...)"
        )
    for key, image in images.items():
        if not DIGEST.search(image):
            yield Mistake(
                f"docker.{key}",
                "image",
                f"{image!r} is no digest, and a pushed tag changes it under a running cluster; use NAME@sha256:...",
            )


def _token(config: dict[str, Any]) -> Iterator[Mistake]:
    mounts = mapping(config.get("file_mounts"))
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        for index, command in enumerate(listed(config.get(key))):
            wanted = environment(str(command)).get("RAY_AUTH_TOKEN_PATH")
            if wanted and starts_ray(str(command)) and wanted not in mounts:
                yield Mistake(
                    f"{key}.{index}",
                    "token",
                    f"RAY_AUTH_TOKEN_PATH={wanted} is no target of file_mounts; add `{wanted}: FILE OF THE TOKEN`",
                )


def _pools(config: dict[str, Any]) -> Iterator[Mistake]:
    types = mapping(config.get("available_node_types"))
    workers = {name: mapping(kind) for name, kind in types.items() if name != config.get("head_node_type")}
    for name, kind in workers.items():
        place = f"available_node_types.{name}"
        resources = mapping(kind.get("resources"))
        owned = [pool for pool in POOLS if resources.get(pool)]
        if len(owned) != 1:
            has = f"both {' and '.join(owned)}" if owned else "none"
            yield Mistake(
                f"{place}.resources", "pool", f"has {has} of data, train and evaluate; give it one, by which jobs find their own nodes"
            )
        machine = str(at(kind, "node_config", "InstanceType") or at(kind, "node_config", "machineType") or at(kind, *_VM_SIZE) or "")
        if GPU_MACHINES.search(machine) and not resources.get("GPU"):
            yield Mistake(f"{place}.resources", "gpu", f"{machine} has GPUs, but the type declares none, so none is used; add GPU: N")
    most = sum(kind.get("max_workers", 0) for kind in workers.values() if isinstance(kind.get("max_workers", 0), int))
    total = config.get("max_workers")
    if isinstance(total, int) and total < most:
        yield Mistake(
            "max_workers",
            "gang",
            f"{total} is below the sum of the types' ({most}): other nodes could keep a training group from its own; set it",
        )
    ranks = at(config, "metadata", "training_workers")
    room = sum(
        kind.get("max_workers", 0) * at(kind, "resources", "train", default=0)
        for kind in workers.values()
        if isinstance(kind.get("max_workers", 0), int) and isinstance(at(kind, "resources", "train", default=0), int)
    )
    if isinstance(ranks, int) and room < ranks:
        yield Mistake(
            "available_node_types",
            "gang",
            f"nodes for training hold {room} workers, the group has {ranks}; raise max_workers of their type",
        )


def _growth(config: dict[str, Any]) -> Iterator[Mistake]:
    name = config.get("head_node_type")
    types = [mapping(kind) for key, kind in mapping(config.get("available_node_types")).items() if key != name]
    labels = mapping(at(config, "available_node_types", name, "labels")) if isinstance(name, str) else {}
    sizes = [(kind.get("max_workers"), mapping(kind.get("resources"))) for kind in types]
    yield from growth_mistakes(labels, sizes, f"available_node_types.{name}.labels")


def growth_mistakes(labels: dict[str, Any], sizes: Sequence[tuple[Any, dict[str, Any]]], place: str) -> Iterator[Mistake]:
    """Whether the head says how far the cluster grows; `sizes` are the most nodes and the resources of each type of worker."""
    if not all(isinstance(value, int) for nodes, resources in sizes for value in (nodes, *resources.values())):
        return  # the schema tells
    wanted = growth(totals(sizes))
    for label, total in wanted.items():
        if str(labels.get(label)) != total:
            found = labels.get(label, "absent")
            yield Mistake(
                f"{place}.{label}",
                "growth",
                (f"{found}; set {total!r}, the sum over the types: jobs learn from it what the cluster grows to"),
            )


_VM_SIZE = ("node_config", "azure_arm_parameters", "vmSize")


def is_spot(node_config: dict[str, Any]) -> bool:
    """Whether a machine may be taken back, in the words of any of the clouds."""
    scheduling = node_config.get("scheduling")
    scheduling = at(scheduling, 0) if isinstance(scheduling, list) else scheduling
    return (
        at(node_config, "InstanceMarketOptions", "MarketType") == "spot"
        or bool(at(scheduling, "preemptible"))
        or at(scheduling, "provisioningModel") == "SPOT"
        or str(at(node_config, "azure_arm_parameters", "priority", default="")).lower() in {"spot", "low"}
    )


def _head(config: dict[str, Any]) -> Iterator[Mistake]:
    name = config.get("head_node_type")
    head = mapping(at(config, "available_node_types", name)) if isinstance(name, str) else {}
    place = f"available_node_types.{name}"
    if is_spot(mapping(head.get("node_config"))):
        yield Mistake(
            f"{place}.node_config", "head-spot", "the head is a spot machine: with it go the cluster and all its jobs; make it on demand"
        )
    cpus = at(head, "resources", "CPU")
    if cpus != 0:
        yield Mistake(
            f"{place}.resources.CPU",
            "head-cpu",
            f"{cpus if cpus is not None else 'absent, so all of the machine'}; set 0: stages run on workers",
        )
    spot = any(is_spot(mapping(at(kind, "node_config"))) for kind in mapping(config.get("available_node_types")).values())
    if spot and at(config, "provider", "type") in {"aws", "azure"} and at(config, "provider", "cache_stopped_nodes") is not False:
        yield Mistake(
            "provider.cache_stopped_nodes", "spot-cache", "not false: Ray would stop spot machines to use them again, and cannot; set false"
        )


def _network(config: dict[str, Any], cloud: Any) -> Iterator[Mistake]:
    if at(config, "provider", "use_internal_ips") is not True:
        yield Mistake(
            "provider.use_internal_ips",
            "public-address",
            "not true, so nodes get public addresses; set true and reach them by VPN or bastion",
        )
    for index, rule in enumerate(listed(at(config, "provider", "security_group", "IpPermissions"))):
        blocks = [
            at(block, key) for key in ("CidrIp", "CidrIpv6") for block in listed(at(rule, "IpRanges")) + listed(at(rule, "Ipv6Ranges"))
        ]
        if open_blocks := [block for block in blocks if block in EVERYWHERE]:
            place = f"provider.security_group.IpPermissions.{index}"
            yield Mistake(place, "open-network", f"lets in {open_blocks[0]}; name the block of your VPN or bastion")
    for name, kind in mapping(config.get("available_node_types")).items():
        place = f"available_node_types.{name}.node_config"
        node = mapping(at(kind, "node_config"))
        interfaces = listed(node.get("NetworkInterfaces") if cloud == "aws" else node.get("networkInterfaces"))
        if cloud == "aws" and not node.get("SecurityGroupIds") and not (interfaces and all(at(each, "Groups") for each in interfaces)):
            yield Mistake(
                place,
                "open-network",
                "no SecurityGroupIds, so Ray makes a group that lets SSH in from 0.0.0.0/0, whatever else is asked; name one of yours",
            )
        if cloud == "gcp" and not interfaces:
            yield Mistake(place, "public-address", "no networkInterfaces, so Ray gives the machine a public address; name the subnetwork")
        if any(at(each, "accessConfigs") or at(each, "AssociatePublicIpAddress") for each in interfaces):
            yield Mistake(
                place, "public-address", "an interface with a public address; leave accessConfigs and AssociatePublicIpAddress out"
            )
