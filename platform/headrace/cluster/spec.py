"""The spec of a cluster: one short YAML, from which `headrace cluster render` makes the files of every target."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from headrace.config import Config, ConfigError, expand_environment, load_yaml, override, validate
from headrace.credentials import refuse_credentials

Target = Literal["aws", "gcp", "azure", "kuberay", "local"]
CLOUDS = ("aws", "gcp", "azure")
TARGETS: tuple[str, ...] = get_args(Target)

Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=30)]
Digest = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-zA-Z0-9./:_-]*@sha256:[0-9a-f]{64}$")]
FolderPath = Annotated[str, StringConstraints(pattern=r"^(/|~/)[A-Za-z0-9._/-]+$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:/-]*$")]  # safe in a shell command and in YAML
Address = Annotated[str, AfterValidator(lambda text: str(ipaddress.ip_address(text)))]  # of a machine
Zone = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Instance(Config):
    """What a machine of a pool is called by each cloud; only the target's is needed."""

    aws: Word | None = None
    gcp: Word | None = None
    azure: Word | None = None


class Machine(Config):
    """One machine."""

    cpus: Count
    memory_gib: Count
    disk_gib: Count = 200  # root volume; objects that Ray's memory has no room for are spilled to it
    instance: Instance = Instance()


class Pool(Machine):
    """Machines for one kind of work, added while there is work for them."""

    gpus: Annotated[int, Field(ge=0)] = 0
    min: Annotated[int, Field(ge=0)] = 0  # nodes that are kept without work
    max: Count
    spot: bool = False
    idle_minutes: Annotated[float, Field(gt=0)] = 10

    @model_validator(mode="after")
    def bounds(self) -> Pool:
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is above max = {self.max}; set min to {self.max} or less")
        return self

    @property
    def slots(self) -> int:
        """Units of work that fit on a node at once: one a GPU, or without any one a core."""
        return self.gpus or self.cpus


class TrainPool(Pool):
    """Machines for training: a group of workers starts together, so `max` nodes must be enough for all of them."""

    workers: Count | None = None  # of the largest run, as its train.num_workers; null: as many as `max` nodes have room for

    @model_validator(mode="after")
    def room(self) -> TrainPool:
        if self.workers and self.workers > self.max * self.slots:
            raise ValueError(
                f"workers = {self.workers} do not fit on max = {self.max} nodes of {self.slots} each; set max to "
                f"{-(-self.workers // self.slots)}"
            )
        return self

    @property
    def gang(self) -> int:
        return self.workers or self.max * self.slots


class EvaluatePool(Pool):
    """Machines for scoring: each of them scores one checkpoint at a time."""

    @property
    def slots(self) -> int:
        return 1


class Network(Config):
    """Who may reach the machines; they have no public address."""

    ssh_from: Annotated[tuple[str, ...], Field(min_length=1)] = ("10.0.0.0/8",)  # CIDR blocks

    @field_validator("ssh_from")
    @classmethod
    def closed(cls, blocks: tuple[str, ...]) -> tuple[str, ...]:
        for block in blocks:
            if ipaddress.ip_network(block).prefixlen == 0:
                raise ValueError("open to every address; name the block of your office, VPN or bastion")
        return blocks


class Aws(Config):
    region: Zone
    subnets: Annotated[tuple[Word, ...], Field(min_length=1)]  # private ones, that reach the registry and S3 by NAT or endpoints
    security_group: Word
    machine_image: Word  # ami-..., with Docker, and NVIDIA's container toolkit for pools with GPUs
    head_profile: Word  # instance profiles: the head's may start and end instances, the workers' only read and write `runs`
    worker_profile: Word
    ssh_user: Word = "ubuntu"


class Gcp(Config):
    project: Word
    region: Zone
    zone: Zone
    subnetwork: Word  # its name, with Cloud NAT and Private Google Access
    machine_image: Word  # projects/P/global/images/NAME
    head_account: Word  # service accounts, as for AWS
    worker_account: Word
    ssh_user: Word = "ubuntu"


class Azure(Config):
    location: Zone
    resource_group: Word
    machine_image: Annotated[str, StringConstraints(pattern=r"^/?[A-Za-z0-9][A-Za-z0-9._:/-]*$")]  # publisher:offer:sku:version, or an id
    ssh_user: Word = "ubuntu"


class Reserve(Config):
    """What a Kubernetes node needs for itself."""

    cpus: Annotated[int, Field(ge=0)] = 1
    memory_gib: Annotated[int, Field(ge=0)] = 4


class Kuberay(Config):
    namespace: Name = "headrace"
    operator_namespace: Name = "kuberay-system"
    platform: Literal["gke", "eks", "aks"] | None = None  # how spot nodes are told; null: pods go to any node
    service_account: Name | None = None  # that may read and write `runs`
    run: Annotated[Name, StringConstraints(max_length=16)] = "run"  # of the RayJob: its name and its ConfigMap's are NAME-RUN
    deadline_hours: Count = 168  # after which a RayJob is ended
    reserve: Reserve = Reserve()


class Machines(Config):
    """Machines by the pool that each belongs to, as addresses."""

    data: tuple[Address, ...] = ()
    train: tuple[Address, ...] = ()
    evaluate: tuple[Address, ...] = ()


class Local(Config):
    """Machines that are there already: this one alone, or those that ssh reaches."""

    cpus: Count = 4  # of this machine
    gpus: Annotated[int, Field(ge=0)] = 0
    head: Address | None = None  # null: this machine alone
    workers: Machines = Machines()
    ssh_user: Word = "ubuntu"
    ssh_key: FolderPath | None = None


class Serve(Config):
    """A Ray Serve application of your own in the image, that loads an exported model."""

    import_path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]  # module:variable
    model: Word  # what `headrace export` wrote; the application gets it as the argument `model`
    replicas: Count = 1


class Spec(Config):
    """One cluster."""

    name: Name
    image: Digest  # by digest: every node runs the same one, and no pushed tag changes it
    runs: Annotated[
        str, StringConstraints(pattern=r"^(s3://|gs://|/)[A-Za-z0-9._/-]+$")
    ]  # where runs lie; a path is shared by all machines
    token: FolderPath = "~/.ray/auth_token"  # the file on this machine that holds the cluster's token, mode 0600
    head: Machine
    data: Pool
    train: TrainPool
    evaluate: EvaluatePool
    network: Network = Network()
    aws: Aws | None = None
    gcp: Gcp | None = None
    azure: Azure | None = None
    kuberay: Kuberay = Kuberay()
    local: Local = Local()
    serve: Serve | None = None

    @property
    def pools(self) -> dict[str, Pool]:
        """By the logical resource that Headrace's jobs ask for."""
        return {"data": self.data, "train": self.train, "evaluate": self.evaluate}


def load_spec(path: Path, target: str, overrides: Sequence[str] = ()) -> Spec:
    """The spec in a YAML file with `key.sub=value` overrides.

    Raises:
        ConfigError: every mistake, a line each; also what the target needs and the spec lacks.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file; jobs/configs/cluster.yaml is a commented spec to start from.")
    written = override(load_yaml(path), overrides)
    values = expand_environment(written)
    refuse_credentials(written, values, str(path))
    spec = validate(Spec, values, str(path))
    if found := list(lacking(spec, target)):
        raise ConfigError("\n".join(f"{path}: {sentence}" for sentence in found))
    return spec


def lacking(spec: Spec, target: str) -> Iterator[str]:
    """What the target needs and the spec does not say, a sentence each."""
    if target in CLOUDS:
        if getattr(spec, target) is None:
            yield f"{target}: required for --target {target}, but absent; jobs/configs/cluster.yaml shows its keys"
        for name, machine in {"head": spec.head, **spec.pools}.items():
            if getattr(machine.instance, target) is None:
                yield f"{name}.instance.{target}: required for --target {target}, but absent; name the type of machine to start"
    if target == "kuberay":
        reserve = spec.kuberay.reserve
        for name, machine in {"head": spec.head, **spec.pools}.items():
            if machine.cpus <= reserve.cpus or machine.memory_gib <= reserve.memory_gib:
                yield (
                    f"{name}: {machine.cpus} cpus and {machine.memory_gib} GiB leave nothing beside kuberay.reserve "
                    f"({reserve.cpus} cpus, {reserve.memory_gib} GiB); give the pool more, or reserve less"
                )
        within = spec.train.model_copy(update={"cpus": spec.train.cpus - reserve.cpus})
        if spec.train.gang > within.max * within.slots and spec.train.workers:
            yield f"train.workers = {spec.train.gang}: max = {within.max} pods of {within.slots} each hold fewer; raise train.max"
        if spec.runs.startswith("/"):
            yield f"runs = {spec.runs!r}: a pod's disk goes with the pod; name an s3:// or gs:// address"
    if target == "local" and spec.local.head:
        addresses = [spec.local.head, *(address for pool in spec.local.workers.model_dump().values() for address in pool)]
        if twice := sorted({address for address in addresses if addresses.count(address) > 1}):
            yield f"local: {', '.join(twice)} is named more than once; a machine is the head or belongs to one pool"
        if len(addresses) == 1:
            yield "local.workers: no machine is named, and the head runs no work; name those of data, train and evaluate"
    if target == "azure" and spec.azure and not re.fullmatch(r"[^/:]+(:[^/:]+){3}|/subscriptions/.+", spec.azure.machine_image):
        yield f"azure.machine_image = {spec.azure.machine_image!r}: expected publisher:offer:sku:version, or an image's resource id"
