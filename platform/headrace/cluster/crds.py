"""KubeRay's custom resource definitions, and what they say of a manifest.

Kubernetes drops unknown fields of such an object without a word (structural schemas prune), so a misspelt one is looked for here; and
rules in CEL, its expression language, are mirrored in Python, those about updates apart: a file has no earlier state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
import zstandard

from headrace.cluster.mistakes import Mistake, listed, mapping, path
from headrace.cluster.yaml_text import Place

FOLDER = Path(__file__).parent / "crds"
KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices", "RayCronJob": "raycronjobs"}
API = "ray.io/v1"

# The rule as the CRD has it -> the same in Python, of the value that it stands at.
CEL: Mapping[str, Callable[[Any], bool]] = {
    "!(has(self.jobStatus) && has(self.jobDeploymentStatus))": lambda at: not ("jobStatus" in at and "jobDeploymentStatus" in at),
    "has(self.jobStatus) || has(self.jobDeploymentStatus)": lambda at: "jobStatus" in at or "jobDeploymentStatus" in at,
    "!((has(self.onSuccess) || has(self.onFailure)) && has(self.deletionRules))": lambda at: (
        not (("onSuccess" in at or "onFailure" in at) and "deletionRules" in at)
    ),
    "((has(self.onSuccess) && has(self.onFailure)) || has(self.deletionRules))": lambda at: (
        ("onSuccess" in at and "onFailure" in at) or "deletionRules" in at
    ),
    "self in ['ray.io/kuberay-operator', 'kueue.x-k8s.io/multikueue']": lambda at: (
        at in ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
    ),
}
OF_UPDATES = "oldSelf"


@functools.cache
def schema(kind: str) -> dict[str, Any]:
    """The schema of a kind's version v1; half a second, once."""
    packed = (FOLDER / f"ray.io_{KINDS[kind]}.yaml.zst").read_bytes()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the compiled one where it is there: ten times as fast
    definition = loader(zstandard.ZstdDecompressor().decompressobj().decompress(packed)).get_single_data()
    version = next(each for each in definition["spec"]["versions"] if each["name"] == "v1")
    return dict(version["schema"]["openAPIV3Schema"])


def manifest_mistakes(manifest: dict[str, Any], kind: str) -> Iterator[Mistake]:
    """Breaches of the kind's schema, unknown fields, and breaches of its rules."""
    import jsonschema

    for error in jsonschema.Draft202012Validator(schema(kind)).iter_errors(manifest):
        message = error.message if len(error.message) < 200 else f"{str(error.instance)[:60]}...: not valid under {error.validator}"
        yield Mistake(path(list(error.absolute_path)), "schema", message)
    yield from walk(manifest, schema(kind), ())


def walk(value: Any, node: Mapping[str, Any], place: Place) -> Iterator[Mistake]:
    """Unknown fields and broken rules, from a value and the schema of its place downwards."""
    for rule in node.get("x-kubernetes-validations", ()):
        holds = None if OF_UPDATES in rule["rule"] else CEL[rule["rule"]]
        if holds and isinstance(value, Mapping | str) and not holds(value):
            yield Mistake(path(place), "rule", str(rule["message"]))
    if isinstance(value, Mapping):
        known = mapping(node.get("properties"))
        further = node.get("additionalProperties")
        free = bool(further) or bool(node.get("x-kubernetes-preserve-unknown-fields")) or not known
        for key, item in value.items():
            if key in known:
                yield from walk(item, known[key], (*place, key))
            elif isinstance(further, Mapping):
                yield from walk(item, further, (*place, key))
            elif not free:
                yield Mistake(
                    path((*place, key)),
                    "unknown-field",
                    f"no field of this object, which Kubernetes would drop silently{_near(key, known)}",
                )
    for index, item in enumerate(listed(value)):
        yield from walk(item, mapping(node.get("items")), (*place, index))


def _near(key: Any, known: Mapping[str, Any]) -> str:
    import difflib

    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
