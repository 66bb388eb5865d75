"""What Ray and the clouds say of a launcher's file, without a cloud."""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.cluster.mistakes import Mistake, at, mapping, path

# https://cloud.google.com/compute/docs/reference/rest/v1/instances, and `sourceInstanceTemplate`, which Ray takes out of it.
GCP_FIELDS = frozenset(
    [
        "advancedMachineFeatures",
        "canIpForward",
        "confidentialInstanceConfig",
        "deletionProtection",
        "description",
        "disks",
        "displayDevice",
        "guestAccelerators",
        "hostname",
        "instanceEncryptionKey",
        "keyRevocationActionType",
        "labels",
        "machineType",
        "metadata",
        "minCpuPlatform",
        "name",
        "networkInterfaces",
        "networkPerformanceConfig",
        "params",
        "privateIpv6GoogleAccess",
        "reservationAffinity",
        "resourcePolicies",
        "scheduling",
        "serviceAccounts",
        "shieldedInstanceConfig",
        "sourceMachineImage",
        "sourceInstanceTemplate",
        "tags",
    ]
)
RAY_GIVES = {"vmName", "vmTags", "vmCount", "msi", "nsg", "subnet", "zones", "provisionPublicIp", "adminUsername", "publicKey"}
AZURE_TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "int": (int,), "bool": (bool,), "object": (dict,), "array": (list,)}


def schema_mistakes(config: dict[str, Any]) -> Iterator[Mistake]:
    """Every breach of Ray's schema; else what its own checks say once its defaults are filled in.

    Ray's functions raise the first mistake alone, and need the defaults; its schema alone is asked first, for all of them.
    """
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    found = [
        Mistake(path(list(error.absolute_path)), "schema", _brief(error))
        for error in jsonschema.Draft7Validator(schema).iter_errors(config)
    ]
    yield from found or _asked_of_ray(config)


def _brief(error: Any) -> str:
    """A schema's complaint without the whole value, which may be a page."""
    if error.validator == "type":
        return f"{_short(error.instance)}: expected {error.validator_value}, got {type(error.instance).__name__}"
    if error.validator in {"enum", "minimum", "maximum", "pattern"}:
        return f"{_short(error.instance)}: {error.validator} is {error.validator_value}"
    return str(error.message) if len(error.message) < 200 else f"{error.message[:200]}..."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _asked_of_ray(config: dict[str, Any]) -> Iterator[Mistake]:
    from ray.autoscaler._private.cli_logger import cli_logger
    from ray.autoscaler._private.util import prepare_config, validate_config

    level = logging.getLogger("ray.autoscaler").level
    cli_logger.configure(log_style="record", verbosity=0)
    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except BaseException as error:  # its logger ends the process on some mistakes
        if isinstance(error, KeyboardInterrupt):
            raise
        yield Mistake("document", "ray", f"Ray refuses it: {str(error).strip() or type(error).__name__}")
    finally:
        logging.getLogger("ray.autoscaler").setLevel(level)


def node_mistakes(config: dict[str, Any]) -> Iterator[Mistake]:
    """What the cloud would say of each request for a machine; of AWS only where botocore is installed (`headrace[s3]`)."""
    check = {"aws": _aws, "gcp": _gcp, "azure": _azure}.get(at(config, "provider", "type", default=""))
    for name, kind in mapping(config.get("available_node_types")).items() if check else ():
        node = at(kind, "node_config")
        if isinstance(node, dict) and check:
            yield from check(node, f"available_node_types.{name}.node_config")


def unchecked(config: dict[str, Any]) -> str | None:
    """What this machine cannot check of the file."""
    if at(config, "provider", "type") == "aws" and importlib.util.find_spec("botocore") is None:
        return "node_config was not held against EC2's API: pip install 'headrace[s3]'"
    return None


def _aws(node: dict[str, Any], place: str) -> Iterator[Mistake]:
    """Against the API's own description, that of RunInstances, as botocore carries it."""
    if importlib.util.find_spec("botocore") is None:
        return
    from botocore.validate import ParamValidator

    request = {key: value for key, value in node.items() if key != "SubnetIds"} | {"MinCount": 1, "MaxCount": 1}  # Ray picks one of them
    for line in ParamValidator().validate(request, _run_instances()).generate_report().splitlines():
        yield Mistake(place, "node-config", line.split(", must be one of:")[0])
    if not node.get("ImageId"):
        yield Mistake(f"{place}.ImageId", "machine-image", "absent, so Ray takes an image of its own, years old; name one that you tested")


@functools.cache
def _run_instances() -> Any:
    import botocore.session

    return botocore.session.Session().get_service_model("ec2").operation_model("RunInstances").input_shape


def _gcp(node: dict[str, Any], place: str) -> Iterator[Mistake]:
    for key in sorted(set(node) - GCP_FIELDS):
        yield Mistake(f"{place}.{key}", "node-config", "no field of a Compute Engine instance")
    for index, disk in enumerate(node.get("disks") or [{}]):
        image = str(at(disk, "initializeParams", "sourceImage", default=""))
        if at(disk, "boot") and ("/family/" in image or not image):
            yield Mistake(
                f"{place}.disks.{index}",
                "machine-image",
                f"{image or 'no image'}: a family's image changes under a cluster; name one image",
            )


def _azure(node: dict[str, Any], place: str) -> Iterator[Mistake]:
    """Against the template with which Ray asks for a machine."""
    import ray.autoscaler

    template = json.loads((Path(ray.autoscaler.__file__).parent / "_private" / "_azure" / "azure-vm-template.json").read_text())
    known = {name: each["type"] for name, each in template["parameters"].items() if name not in RAY_GIVES}
    given = mapping(node.get("azure_arm_parameters"))
    for key in sorted(set(given) - set(known) - {"availability_zone"}):
        yield Mistake(
            f"{place}.azure_arm_parameters.{key}", "node-config", f"no parameter of Ray's template; it has {', '.join(sorted(known))}"
        )
    for key, value in given.items():
        if key in known and (not isinstance(value, AZURE_TYPES[known[key]]) or (known[key] == "int" and isinstance(value, bool))):
            yield Mistake(
                f"{place}.azure_arm_parameters.{key}", "node-config", f"{value!r}: expected {known[key]}, got {type(value).__name__}"
            )
    if str(given.get("imageVersion", "")).lower() == "latest":
        yield Mistake(f"{place}.azure_arm_parameters.imageVersion", "machine-image", "latest changes under a cluster; name a version")
