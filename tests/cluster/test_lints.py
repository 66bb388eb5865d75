"""Each rule of our own has a case that it catches; what `render` makes breaks none."""

from __future__ import annotations

import ast
import copy
from pathlib import Path

import pytest
import yaml

import headrace.cluster
from headrace.cluster.render import render
from headrace.cluster.shell import environment, flag
from headrace.cluster.spec import load_spec
from headrace.cluster.validate import validate_text

EXAMPLE = Path(__file__).resolve().parents[2] / "jobs" / "configs" / "cluster.yaml"
MACHINES = ["local.head=10.0.0.1", "local.workers={data: [10.0.0.2]}"]
FILES = {  # of each target the text of its last file
    name: list(render(load_spec(EXAMPLE, target, overrides), target).values())[-1]
    for name, target, overrides in (
        *((cloud, cloud, []) for cloud in ("aws", "gcp", "azure")),
        ("ssh", "local", MACHINES),
        ("script", "local", []),
        ("job", "kuberay", []),
    )
}


def put(*path, value=None):
    """A change of a document: `value` at a path, or nothing at all there."""

    def change(document):
        for key in path[:-1]:
            document = document[key]
        if value is None:
            del document[path[-1]]
        else:
            document[path[-1]] = value

    return change


class Swap:
    """A change of the text, each long command of it on one line."""

    def __init__(self, *pairs):
        self.pairs = pairs

    def __call__(self, text):
        for old, new in self.pairs:
            assert old in text
            text = text.replace(old, new)
        return text


def swap(old, new):
    return Swap((old, new))


TYPES = "available_node_types"
CLUSTER = ("spec", "rayClusterSpec")
HEAD = (*CLUSTER, "headGroupSpec")
DATA = (*CLUSTER, "workerGroupSpecs", 0)
POD, CONTAINER = ("template", "spec"), ("template", "spec", "containers", 0)
SPOT_TERM = {"matchExpressions": [{"key": "eks.amazonaws.com/capacityType", "operator": "In", "values": ["SPOT"]}]}
OPEN_RULE = [{"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]

CASES = [
    # Commands that start Ray
    ("aws", "token", swap("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled")),
    ("aws", "token", swap("RAY_AUTH_TOKEN_PATH=~/.ray/auth_token", "RAY_AUTH_TOKEN_PATH=/etc/token")),  # mounted nowhere
    ("ssh", "token", swap("export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/.ray/auth_token", "export")),
    ("script", "token", swap("export RAY_AUTH_MODE=token\n", "")),
    ("gcp", "keepalive", swap("RAY_grpc_client_keepalive_time_ms=5000", "RAY_grpc_client_keepalive_time_ms=300000")),
    ("script", "keepalive", swap("export RAY_grpc_client_keepalive_timeout_ms=5000\n", "")),
    ("azure", "job-stop", swap("RAY_JOB_STOP_WAIT_TIME_S=600", "RAY_JOB_STOP_WAIT_TIME_S=3")),
    ("aws", "job-start", swap("RAY_JOB_START_TIMEOUT_SECONDS=7200;", ";")),
    ("aws", "dashboard", swap("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0")),
    ("script", "dashboard", swap("--dashboard-host=127.0.0.1", "--dashboard-host 0.0.0.0")),
    ("script", "address", swap("--node-ip-address=127.0.0.1", "--node-ip-address=10.0.0.1")),
    ("gcp", "head-cpu", swap("--num-cpus=0", "--num-cpus=8")),
    ("aws", "ulimit", swap("ulimit -n 65536;", "ulimit -n 1024;")),
    ("aws", "spill", swap("--object-spilling-directory=/mnt/spill", "")),
    (
        "aws",
        "shm",
        Swap(("start --head", "start --head --object-store-memory=9000000000"), ("--ulimit nofile", "--shm-size=8g --ulimit nofile")),
    ),
    # Launcher files
    ("aws", "setup", put("setup_commands")),
    ("azure", "setup", put("head_setup_commands", value=["pip install https://host/ray-wheels/latest/ray-3.0.0.dev0.whl"])),
    ("gcp", "start", put("worker_start_ray_commands", value=["ray stop"])),
    ("gcp", "start", swap("--autoscaling-config=~/ray_bootstrap_config.yaml", "")),
    ("aws", "image", put("docker", "image", value="registry.example.com/headrace:latest")),
    ("ssh", "image", put("docker")),
    ("aws", "pool", put(TYPES, "data", "resources", "data")),
    ("aws", "pool", put(TYPES, "train", "resources", "data", value=8)),
    ("aws", "gpu", put(TYPES, "train", "resources", "GPU")),
    ("gcp", "gpu", put(TYPES, "evaluate", "resources", "GPU")),
    ("aws", "gang", put("max_workers", value=39)),
    ("aws", "growth", put(TYPES, "data", "max_workers", value=29)),
    ("gcp", "growth", put(TYPES, "head", "labels")),
    ("job", "growth", put(*HEAD, "labels", "headrace.max/train", value="63")),
    ("job", "growth", put(*DATA, "maxReplicas", value=29)),
    ("aws", "gang", put(TYPES, "train", "max_workers", value=7)),
    ("aws", "head-cpu", put(TYPES, "head", "resources", value={})),
    ("aws", "head-spot", put(TYPES, "head", "node_config", "InstanceMarketOptions", value={"MarketType": "spot"})),
    ("gcp", "head-spot", put(TYPES, "head", "node_config", "scheduling", value=[{"preemptible": True}])),
    ("azure", "head-spot", put(TYPES, "head", "node_config", "azure_arm_parameters", "priority", value="Spot")),
    ("aws", "spot-cache", put("provider", "cache_stopped_nodes")),
    ("azure", "public-address", put("provider", "use_internal_ips", value=False)),
    ("gcp", "public-address", put(TYPES, "data", "node_config", "networkInterfaces")),
    (
        "gcp",
        "public-address",
        put(TYPES, "data", "node_config", "networkInterfaces", 0, "accessConfigs", value=[{"type": "ONE_TO_ONE_NAT"}]),
    ),
    ("aws", "open-network", put(TYPES, "data", "node_config", "SecurityGroupIds")),
    ("aws", "open-network", put("provider", "security_group", value={"GroupName": "x", "IpPermissions": OPEN_RULE})),
    ("aws", "machine-image", put(TYPES, "data", "node_config", "ImageId")),
    (
        "gcp",
        "machine-image",
        put(TYPES, "head", "node_config", "disks", 0, "initializeParams", "sourceImage", value="projects/x/global/images/family/y"),
    ),
    ("azure", "machine-image", put(TYPES, "data", "node_config", "azure_arm_parameters", "imageVersion", value="latest")),
    ("aws", "node-config", put(TYPES, "data", "node_config", "InstanceTyp", value="m7i.large")),
    ("aws", "node-config", put(TYPES, "data", "node_config", "EbsOptimized", value="yes")),
    ("gcp", "node-config", put(TYPES, "data", "node_config", "machineTyp", value="n2-standard-4")),
    ("azure", "node-config", put(TYPES, "data", "node_config", "azure_arm_parameters", "vmsize", value="Standard_D4s_v5")),
    ("azure", "node-config", put(TYPES, "data", "node_config", "azure_arm_parameters", "osDiskSize", value="200")),
    # KubeRay
    ("job", "token", put(*CLUSTER, "authOptions")),
    ("job", "autoscaler", put(*CLUSTER, "autoscalerOptions", "version", value="v1")),
    ("job", "retry", put("spec", "backoffLimit")),
    ("job", "head-cpu", put(*HEAD, "rayStartParams", "num-cpus")),
    ("job", "head-spot", put(*HEAD, *POD, "nodeSelector", value={"cloud.google.com/gke-spot": "true"})),
    (
        "job",
        "head-spot",
        put(
            *HEAD,
            *POD,
            "affinity",
            "nodeAffinity",
            "requiredDuringSchedulingIgnoredDuringExecution",
            "nodeSelectorTerms",
            0,
            value=SPOT_TERM,
        ),
    ),
    ("job", "evict", put(*HEAD, "template", "metadata", "annotations")),
    ("job", "job-start", put(*HEAD, *CONTAINER, "env", -1)),
    ("job", "image", put(*DATA, *CONTAINER, "image", value="rayproject/ray:2.60.0")),
    ("job", "keepalive", put(*DATA, *CONTAINER, "env", 0)),
    ("job", "shm", put(*DATA, *CONTAINER, "volumeMounts", 0)),
    ("job", "open-network", put(*DATA, "template", "metadata", "labels", "headrace/cluster", value="other")),
    ("job", "replicas", put(*DATA, "minReplicas", value=31)),
    ("job", "replicas", put(*DATA, "replicas", value=31)),
    ("job", "pool", put(*DATA, "resources", value={"CPU": "8"})),
    ("job", "pool", put(*DATA, "resources", "train", value="8")),
    ("job", "gpu", put(*CLUSTER, "workerGroupSpecs", 1, "resources", "GPU", value="4")),
    ("job", "gpu", put(*DATA, "resources", "GPU", value="1")),
    ("job", "operator", put("metadata", "name", value="1-run")),
    ("job", "operator", put("metadata", "name", value="r" * 48)),
    ("job", "operator", put("spec", "shutdownAfterJobFinishes", value=True)),  # beside deletionRules
    ("job", "operator", put("spec", "ttlSecondsAfterFinished", value=60)),
    ("job", "operator", put("spec", "deletionStrategy", "deletionRules", 0, "policy", value="DeleteWorkers")),  # with autoscaling
    ("job", "operator", put("spec", "deletionStrategy", "deletionRules", 1, "condition", "jobStatus", value="SUCCEEDED")),  # twice
    ("job", "operator", put("spec", "rayClusterSpec")),
    ("job", "operator", put(*CLUSTER, "rayVersion")),
    ("job", "operator", put(*DATA, "rayStartParams", "num-cpus", value="8")),  # beside resources
    ("job", "operator", put(*DATA, "rayStartParams", "labels", value="a=b")),
    ("job", "operator", put(*DATA, *POD, "restartPolicy", value="Always")),
    ("job", "operator", put(*DATA, "suspend", value=True)),
]


def changed(name, change):
    """The file's text after a change of its last document, or of the text itself."""
    text = FILES[name]
    if name == "script":
        return change(text)
    documents = list(yaml.safe_load_all(text))
    if isinstance(change, Swap):
        return change(yaml.safe_dump_all(documents, width=10**6))
    change(documents[-1])
    return yaml.safe_dump_all(copy.deepcopy(documents))


@pytest.mark.parametrize("name", FILES)
def test_what_render_makes_breaks_no_rule(name):
    assert validate_text(FILES[name], f"f.{'sh' if name == 'script' else 'yaml'}").lines() == []


@pytest.mark.parametrize("name, rule, change", CASES, ids=[f"{number}-{name}-{rule}" for number, (name, rule, _) in enumerate(CASES)])
def test_a_rule_catches_its_case_and_nothing_else_is_told(name, rule, change):
    found = validate_text(changed(name, change), f"f.{'sh' if name == 'script' else 'yaml'}").mistakes
    told = {mistake.rule for mistake in found}
    assert told - {"growth"} == {rule} - {"growth"}, [mistake.sentence for mistake in found]  # sums over types change with them
    assert rule in told
    for mistake in found:
        assert mistake.place and len(mistake.sentence) > 15


def test_every_rule_has_a_case():
    rules = set()
    for path in Path(headrace.cluster.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            position = {"Mistake": 1, "lacks": 0}.get(name)
            if position is not None and len(node.args) > position and isinstance(node.args[position], ast.Constant):
                rules.add(node.args[position].value)
    elsewhere = {"schema", "ray", "yaml", "kind", "secret", "rule", "unknown-field"}  # tests/cluster/test_validate.py
    assert rules - elsewhere == {rule for _, rule, _ in CASES}


def test_commands_are_read_as_a_shell_reads_them():
    command = "ulimit -n 65536; export A=1 B='two words'; C=~/x ray start --num-cpus=0 --resources='{\"a\": 1}' --dashboard-host 127.0.0.1"
    assert environment(command) == {"A": "1", "B": "two words", "C": "~/x"}
    assert (flag(command, "num-cpus"), flag(command, "resources"), flag(command, "dashboard-host")) == ("0", '{"a": 1}', "127.0.0.1")
    assert flag(command, "head") is None
