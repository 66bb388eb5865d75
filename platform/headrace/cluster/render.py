"""The files of a target, from the spec of a cluster."""

from __future__ import annotations

from headrace.cluster import kuberay, launcher, local
from headrace.cluster.spec import Spec


def render(spec: Spec, target: str) -> dict[str, str]:
    """Contents of the target's files, by their names."""
    if target == "kuberay":
        return kuberay.render(spec)
    if target == "local":
        return local.render(spec)
    return {f"{spec.name}-{target}.yaml": launcher.render(spec, target)}


def joined(files: dict[str, str]) -> str:
    """The files as one text; documents that stand in several of them come once."""
    documents = dict.fromkeys(document for text in files.values() for document in text.split("---\n"))
    return "---\n".join(documents)
