"""What a cluster may grow to: an autoscaling one has no node of a pool yet when work for that pool comes."""

from __future__ import annotations

from collections.abc import Mapping

# Of the head node: headrace.max/data=30 says that the cluster grows to 30 of the resource `data`. Ray's own autoscalers tell nobody how far
# they go (in 2.60, the cluster config that Ray Train and Ray Data look for is reported by none of those that come with it).
MAX_LABEL = "headrace.max/"
POOL_LABEL = "pool"  # of a worker node in such a cluster: what it is for


def growth(totals: Mapping[str, float]) -> dict[str, str]:
    """The head's labels for a cluster that grows to so much of each resource."""
    return {f"{MAX_LABEL}{name}": f"{total:g}" for name, total in totals.items()}


def most_resources() -> dict[str, float]:
    """How much the connected cluster has of each logical resource at its largest: now, or once its autoscaler has added all it may."""
    import ray

    most = dict(ray.cluster_resources())
    for name, total in _declared().items():
        most[name] = max(most.get(name, 0.0), total)
    return most


def resources_here() -> dict[str, float]:
    """Logical resources of this node of the connected cluster: no CPU on a head that is kept free of work."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    return next((dict(node["Resources"]) for node in ray.nodes() if node["NodeID"] == own), {})


def pool_selector(pool: str) -> dict[str, str]:
    """Labels of the nodes of a pool, where the cluster says that it has such nodes; else none.

    Ray Data asks the autoscaler for bare CPUs, which it would find on any type of node: selected by label, they are those of the pool.
    """
    return {POOL_LABEL: pool} if pool in _declared() else {}


def _declared() -> dict[str, float]:
    import ray

    labels = [node.get("Labels") or {} for node in ray.nodes() if node["Alive"]]
    return {key.removeprefix(MAX_LABEL): float(value) for each in labels for key, value in each.items() if key.startswith(MAX_LABEL)}
