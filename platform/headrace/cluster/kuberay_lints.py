"""Rules for KubeRay's objects beyond their schemas: what the operator refuses, and what makes a cluster open, lossy, or stuck."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from headrace.cluster.commands import KEEPALIVE
from headrace.cluster.lints import DIGEST, POOLS, growth_mistakes
from headrace.cluster.mistakes import Mistake, at, listed, mapping
from headrace.cluster.pods import GPU, SPOT
from headrace.cluster.shell import START_S

CLUSTER_PLACE: dict[str, tuple[str, ...]] = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayService": ("spec", "rayClusterConfig"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
}
NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")  # DNS-1035, which the operator asks for
LONGEST = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 47}


def kuberay_mistakes(manifest: dict[str, Any], kind: str, others: Sequence[dict[str, Any]]) -> Iterator[Mistake]:
    """Every mistake of one object; `others` are the documents that stand beside it."""
    name = str(at(manifest, "metadata", "name", default=""))
    if not NAME.match(name) or len(name) > LONGEST[kind]:
        sentence = f"{name!r}: the operator takes up to {LONGEST[kind]} lower-case letters, digits and dashes, a letter first"
        yield Mistake("metadata.name", "operator", sentence)
    if kind == "RayJob":
        yield from _job(mapping(manifest.get("spec")))
    keys = CLUSTER_PLACE[kind]
    cluster = at(manifest, *keys)
    if isinstance(cluster, dict):
        yield from _cluster(cluster, ".".join(keys), others)


def _job(spec: dict[str, Any]) -> Iterator[Mistake]:
    rules = listed(at(spec, "deletionStrategy", "deletionRules"))
    if rules and spec.get("shutdownAfterJobFinishes"):
        yield Mistake(
            "spec.deletionStrategy",
            "operator",
            "deletionRules beside shutdownAfterJobFinishes: the operator takes one of them; drop the latter",
        )
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield Mistake(
            "spec.ttlSecondsAfterFinished", "operator", "it needs shutdownAfterJobFinishes: true; or give ttlSeconds in deletionRules"
        )
    scaled = at(spec, "rayClusterSpec", "enableInTreeAutoscaling")
    seen = set()
    for index, rule in enumerate(rules):
        place = f"spec.deletionStrategy.deletionRules.{index}"
        if at(rule, "policy") == "DeleteWorkers" and scaled:
            yield Mistake(
                place, "operator", "DeleteWorkers is refused with autoscaling, which removes idle workers itself; use DeleteCluster"
            )
        key = (at(rule, "policy"), at(rule, "condition", "jobStatus"), at(rule, "condition", "jobDeploymentStatus"))
        if key in seen:
            yield Mistake(place, "operator", f"a second rule for {key[0]} and {key[1] or key[2]}; the operator refuses it")
        seen.add(key)
    if not spec.get("rayClusterSpec") and not spec.get("clusterSelector"):
        yield Mistake("spec", "operator", "neither rayClusterSpec nor clusterSelector; a job needs a cluster")
    if not spec.get("backoffLimit") and spec.get("rayClusterSpec"):
        yield Mistake(
            "spec.backoffLimit", "retry", "0, so one lost head ends the run; set 10: each attempt goes on where the last one stopped"
        )


def _cluster(spec: dict[str, Any], place: str, others: Sequence[dict[str, Any]]) -> Iterator[Mistake]:
    if at(spec, "authOptions", "mode") != "token":
        yield Mistake(
            f"{place}.authOptions", "token", "no mode: token, so whoever reaches a pod can run code on it; set mode: token and secretName"
        )
    if not spec.get("rayVersion"):
        yield Mistake(
            f"{place}.rayVersion", "operator", "absent, and the operator asks for it with authOptions; name the image's version of Ray"
        )
    if spec.get("enableInTreeAutoscaling") and at(spec, "autoscalerOptions", "version") != "v2":
        found = at(spec, "autoscalerOptions", "version")
        yield Mistake(
            f"{place}.autoscalerOptions.version", "autoscaler", f"{found or 'absent'}; set v2, which drains a node before it removes it"
        )
    head = mapping(spec.get("headGroupSpec"))
    yield from _head(head, f"{place}.headGroupSpec")
    workers = [mapping(each) for each in listed(spec.get("workerGroupSpecs"))]
    sizes = [(each.get("maxReplicas"), {name: _number(count) for name, count in _resources(each).items()}) for each in workers]
    yield from growth_mistakes(mapping(head.get("labels")), sizes, f"{place}.headGroupSpec.labels")
    groups = [
        ("headGroupSpec", head),
        *((f"workerGroupSpecs.{index}", mapping(each)) for index, each in enumerate(listed(spec.get("workerGroupSpecs")))),
    ]
    for name, group in groups:
        yield from _group(group, f"{place}.{name}", others)
        if name != "headGroupSpec":
            yield from _workers(group, f"{place}.{name}", bool(spec.get("enableInTreeAutoscaling")))


def _resources(group: dict[str, Any]) -> dict[str, Any]:
    """The Ray resources of a group's pods, from either place where they may stand."""
    found: dict[str, Any] = {}
    text = at(group, "rayStartParams", "resources")
    if isinstance(text, str):
        try:
            found = mapping(json.loads(json.loads(text) if text.startswith('"') else text))
        except ValueError:
            found = {}
    for flag, resource in (("num-cpus", "CPU"), ("num-gpus", "GPU")):
        if at(group, "rayStartParams", flag) is not None:
            found[resource] = at(group, "rayStartParams", flag)
    return found | mapping(group.get("resources"))


def _number(count: Any) -> Any:
    return int(count) if str(count).isdigit() else count


def _head(head: dict[str, Any], place: str) -> Iterator[Mistake]:
    if str(_resources(head).get("CPU")) != "0":
        yield Mistake(f"{place}.rayStartParams", "head-cpu", 'no num-cpus: "0"; stages would run beside the cluster\'s state and kill it')
    if at(head, "template", "metadata", "annotations", "cluster-autoscaler.kubernetes.io/safe-to-evict") != "false":
        yield Mistake(
            f"{place}.template.metadata.annotations",
            "evict",
            'add cluster-autoscaler.kubernetes.io/safe-to-evict: "false", or a tidy-up ends it',
        )
    pod = mapping(at(head, "template", "spec"))
    labels = {key for key, _ in SPOT.values()}
    chosen = [key for key, value in mapping(pod.get("nodeSelector")).items() if key in labels and str(value).lower() in {"true", "spot"}]
    for term in listed(at(pod, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")):
        chosen += [
            str(at(each, "key"))
            for each in listed(at(term, "matchExpressions"))
            if at(each, "key") in labels and at(each, "operator") in {"In", "Exists"}
        ]
    if chosen:
        yield Mistake(
            f"{place}.template.spec", "head-spot", f"{chosen[0]} puts the head on a spot node: with it go the cluster and all its jobs"
        )
    waits = [at(each, "value") for each in listed(at(pod, "containers", 0, "env")) if at(each, "name") == "RAY_JOB_START_TIMEOUT_SECONDS"]
    if not (waits and str(waits[-1]).isdigit() and int(waits[-1]) >= START_S):
        found = waits[-1] if waits else "unset (900)"
        sentence = f"RAY_JOB_START_TIMEOUT_SECONDS is {found}; use 7200: a job may wait for a machine that is being started"
        yield Mistake(f"{place}.template.spec.containers.0.env", "job-start", sentence)


def _group(group: dict[str, Any], place: str, others: Sequence[dict[str, Any]]) -> Iterator[Mistake]:
    pod = mapping(at(group, "template", "spec"))
    where = f"{place}.template.spec"
    flags = {"num-cpus", "num-gpus", "memory", "resources"} & set(mapping(group.get("rayStartParams")))
    if flags and group.get("resources"):
        yield Mistake(place, "operator", f"resources beside rayStartParams.{sorted(flags)[0]}: the operator takes one of them")
    if "labels" in mapping(group.get("rayStartParams")):
        yield Mistake(f"{place}.rayStartParams.labels", "operator", "not supported there; use the group's own labels")
    if pod.get("restartPolicy") not in (None, "Never"):
        yield Mistake(f"{where}.restartPolicy", "operator", f"{pod['restartPolicy']}: the autoscaler v2 needs Never, or none")
    for index, container in enumerate(listed(pod.get("containers"))):
        image = str(at(container, "image", default=""))
        if not DIGEST.search(image):
            yield Mistake(
                f"{where}.containers.{index}.image", "image", f"{image!r} is no digest, and a pushed tag changes it; use NAME@sha256:..."
            )
    variables = {at(each, "name"): at(each, "value") for each in listed(at(pod, "containers", 0, "env"))}
    for name, wanted in KEEPALIVE.items():
        if not str(variables.get(name, "")).isdigit() or int(str(variables[name])) > 30_000:
            sentence = (
                f"{name} is {variables.get(name, 'unset')}; set {wanted}: a node that vanishes without a word is not noticed for minutes"
            )
            yield Mistake(f"{where}.containers.0.env", "keepalive", sentence)
    mounts = {at(each, "mountPath"): at(each, "name") for each in listed(at(pod, "containers", 0, "volumeMounts"))}
    memory = [at(each, "name") for each in listed(pod.get("volumes")) if at(each, "emptyDir", "medium") == "Memory"]
    if mounts.get("/dev/shm") not in memory or not memory:
        yield Mistake(
            where, "shm", "/dev/shm is the container's 64 MB, so Ray's object store lies on disk; mount an emptyDir of medium Memory there"
        )
    labels = mapping(at(group, "template", "metadata", "labels"))
    if not any(_selects(each, labels) for each in others):
        yield Mistake(
            f"{place}.template.metadata.labels",
            "open-network",
            "no NetworkPolicy in this file selects these pods; add one for their labels",
        )


def _selects(document: dict[str, Any], labels: dict[str, Any]) -> bool:
    wanted = at(document, "spec", "podSelector", "matchLabels", default={})
    return document.get("kind") == "NetworkPolicy" and isinstance(wanted, dict) and wanted.items() <= labels.items()


def _workers(group: dict[str, Any], place: str, scaled: bool) -> Iterator[Mistake]:
    least, most, now = (group.get(key) for key in ("minReplicas", "maxReplicas", "replicas"))
    if isinstance(least, int) and isinstance(most, int) and not least <= most:
        yield Mistake(f"{place}.minReplicas", "replicas", f"{least} is above maxReplicas = {most}")
    elif isinstance(now, int) and isinstance(least, int) and isinstance(most, int) and not least <= now <= most:
        yield Mistake(f"{place}.replicas", "replicas", f"{now} is not within minReplicas = {least} and maxReplicas = {most}")
    if group.get("suspend") and scaled:
        yield Mistake(f"{place}.suspend", "operator", "a group cannot be suspended with autoscaling")
    resources = _resources(group)
    owned = [pool for pool in POOLS if str(resources.get(pool, "0")) != "0"]
    if len(owned) != 1:
        has = f"both {' and '.join(owned)}" if owned else "none"
        yield Mistake(
            f"{place}.resources", "pool", f"has {has} of data, train and evaluate; give it one, by which jobs find their own nodes"
        )
    limit = at(group, "template", "spec", "containers", 0, "resources", "limits", GPU)
    if limit is not None and "GPU" in resources and str(limit) != str(resources["GPU"]):
        yield Mistake(f"{place}.resources.GPU", "gpu", f"{resources['GPU']}, but the pod asks for {limit} of {GPU}; make them equal")
    if limit is None and str(resources.get("GPU", "0")) != "0":
        yield Mistake(
            f"{place}.resources.GPU", "gpu", f"{resources['GPU']}, but the pod asks for none of {GPU}; add it to the container's limits"
        )
