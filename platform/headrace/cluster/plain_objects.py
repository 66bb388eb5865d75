"""Schemas of the plain Kubernetes objects that stand beside KubeRay's: their fields as far as they are used here, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.cluster.mistakes import Mistake, path

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
NUMBER: Schema = {"type": "integer"}


def _object(required: str = "", /, **properties: Any) -> Schema:
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _kind(api: str, required: str, **properties: Schema) -> Schema:
    metadata = _object("name", name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
    return _object(f"apiVersion kind metadata {required}", apiVersion={"const": api}, kind=TEXT, metadata=metadata, **properties)


EXPRESSION = _object("key operator", key=TEXT, operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}, values=_list(TEXT))
SELECTOR = _object(matchLabels=TEXTS, matchExpressions=_list(EXPRESSION))
NUMBER_OR_TEXT: Schema = {"anyOf": [NUMBER, TEXT]}
PORT = _object(port=NUMBER_OR_TEXT, protocol={"enum": ["TCP", "UDP", "SCTP"]}, endPort=NUMBER)
BLOCK = _object("cidr", cidr=TEXT, **{"except": _list(TEXT)})
PEER = _object(podSelector=SELECTOR, namespaceSelector=SELECTOR, ipBlock=BLOCK)
INGRESS = _object(ports=_list(PORT), **{"from": _list(PEER)})
EGRESS = _object(ports=_list(PORT), to=_list(PEER))

KINDS: dict[str, Schema] = {
    "PriorityClass": _kind(
        "scheduling.k8s.io/v1",
        "value",
        value={"type": "integer", "maximum": 1_000_000_000},
        globalDefault={"type": "boolean"},
        description=TEXT,
        preemptionPolicy={"enum": ["Never", "PreemptLowerPriority"]},
    ),
    "PodDisruptionBudget": _kind(
        "policy/v1",
        "spec",
        spec=_object(
            "selector",
            selector=SELECTOR,
            minAvailable=NUMBER_OR_TEXT,
            maxUnavailable=NUMBER_OR_TEXT,
            unhealthyPodEvictionPolicy={"enum": ["IfHealthyBudget", "AlwaysAllow"]},
        ),
    ),
    "NetworkPolicy": _kind(
        "networking.k8s.io/v1",
        "spec",
        spec=_object(
            "podSelector",
            podSelector=SELECTOR,
            policyTypes=_list({"enum": ["Ingress", "Egress"]}),
            ingress=_list(INGRESS),
            egress=_list(EGRESS),
        ),
    ),
}


def object_mistakes(manifest: dict[str, Any], kind: str) -> Iterator[Mistake]:
    """Breaches of the kind's schema; an unknown field is one."""
    import jsonschema

    for error in jsonschema.Draft202012Validator(KINDS[kind]).iter_errors(manifest):
        rule = "unknown-field" if error.validator == "additionalProperties" else "schema"
        yield Mistake(path(list(error.absolute_path)), rule, error.message)
