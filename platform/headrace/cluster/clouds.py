"""What each cloud calls a machine: the `provider` and the `node_config` of Ray's launcher.

Two things that Ray does of itself make a cluster open, so nothing is left to it here (Ray 2.60):

- a security group that Ray makes on AWS lets SSH in from everywhere, also where `provider.security_group.IpPermissions` says otherwise:
  the rules are added up (autoscaler/_private/aws/config.py, `_create_default_inbound_rules`). So the group is named, never made;
- a machine on Google's cloud without `networkInterfaces` gets a public address (autoscaler/_private/gcp/config.py, `_configure_subnet`),
  and so does one on AWS whose subnet gives them out.
"""

from __future__ import annotations

from typing import Any

from headrace.cluster.spec import Machine, Pool, Spec
from headrace.cluster.yaml_text import Place

Parts = tuple[dict[str, Any], dict[Place, str]]  # values, comments


def provider(spec: Spec, cloud: str) -> Parts:
    """The launcher's `provider`, and what a reader has to decide or do about it."""
    return {"aws": _aws_provider, "gcp": _gcp_provider, "azure": _azure_provider}[cloud](spec)


def node_config(spec: Spec, cloud: str, machine: Machine, *, head: bool) -> dict[str, Any]:
    """The request for a machine, in the words of the cloud's own API."""
    spot = isinstance(machine, Pool) and machine.spot
    make = {"aws": _aws_node, "gcp": _gcp_node, "azure": _azure_node}[cloud]
    return make(spec, machine, head, spot)


def ssh_user(spec: Spec, cloud: str) -> str:
    return str(getattr(spec, cloud).ssh_user)


def _aws_provider(spec: Spec) -> Parts:
    assert spec.aws
    group, cluster = spec.aws.security_group, spec.name
    rules = [
        f"aws ec2 authorize-security-group-ingress --group-id {group} --protocol tcp --port 22 --cidr {cidr}"
        for cidr in spec.network.ssh_from
    ]
    comment = "\n".join(
        [
            f"The security group {group} is made once, by you: one that Ray makes is open to SSH from everywhere.",
            f"  aws ec2 create-security-group --group-name {cluster} --description {cluster} --vpc-id VPC",
            *(f"  {rule}" for rule in rules),
            f"  aws ec2 authorize-security-group-ingress --group-id {group} --protocol -1 --source-group {group}",
            "The subnets are private ones: a machine in one that gives out public addresses gets one.",
        ]
    )
    values = {"type": "aws", "region": spec.aws.region, "use_internal_ips": True, "cache_stopped_nodes": False}
    return values, {("provider",): comment}


def _aws_node(spec: Spec, machine: Machine, head: bool, spot: bool) -> dict[str, Any]:
    assert spec.aws
    config: dict[str, Any] = {
        "InstanceType": machine.instance.aws,
        "ImageId": spec.aws.machine_image,
        "IamInstanceProfile": {"Name": spec.aws.head_profile if head else spec.aws.worker_profile},
        "SubnetIds": list(spec.aws.subnets),
        "SecurityGroupIds": [spec.aws.security_group],
        "MetadataOptions": {"HttpTokens": "required"},
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": machine.disk_gib, "VolumeType": "gp3", "Encrypted": True}}
        ],
    }
    return config | ({"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {})


def _gcp_provider(spec: Spec) -> Parts:
    assert spec.gcp
    project, cluster = spec.gcp.project, spec.name
    comment = "\n".join(
        [
            "SSH is let in by a firewall rule that you make once; see that the network has no wider one (`default-allow-ssh` is).",
            f"  gcloud compute firewall-rules create {cluster}-ssh --project {project} --network NETWORK --direction INGRESS "
            "--allow tcp:22 \\",
            f"    --target-tags {cluster} --source-ranges {','.join(spec.network.ssh_from)}",
            f"  gcloud compute firewall-rules create {cluster}-inside --project {project} --network NETWORK --direction INGRESS "
            "--allow all \\",
            f"    --target-tags {cluster} --source-tags {cluster}",
        ]
    )
    values = {
        "type": "gcp",
        "region": spec.gcp.region,
        "availability_zone": spec.gcp.zone,
        "project_id": project,
        "use_internal_ips": True,
    }
    return values, {("provider",): comment}


def _gcp_node(spec: Spec, machine: Machine, head: bool, spot: bool) -> dict[str, Any]:
    assert spec.gcp
    scheduling: dict[str, Any] = {}
    if spot:
        scheduling = {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
            "automaticRestart": False,
            "onHostMaintenance": "TERMINATE",
        }
    elif isinstance(machine, Pool) and machine.gpus:
        scheduling = {"onHostMaintenance": "TERMINATE"}  # a machine with a GPU cannot be moved
    boot = {"diskSizeGb": machine.disk_gib, "sourceImage": spec.gcp.machine_image}
    config: dict[str, Any] = {
        "machineType": machine.instance.gcp,
        "tags": {"items": [spec.name]},
        "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": boot}],
        "networkInterfaces": [{"subnetwork": f"projects/{spec.gcp.project}/regions/{spec.gcp.region}/subnetworks/{spec.gcp.subnetwork}"}],
        "serviceAccounts": [
            {
                "email": spec.gcp.head_account if head else spec.gcp.worker_account,
                "scopes": ["https://www.googleapis.com/auth/cloud-platform"],  # what it may do is the account's roles
            }
        ],
    }
    return config | ({"scheduling": scheduling} if scheduling else {})


def _azure_provider(spec: Spec) -> Parts:
    assert spec.azure
    comment = "\n".join(
        [
            "Ray makes the network and its security group, which lets SSH in from every address that reaches the private ones; "
            "narrow it after",
            "each `ray up`, which writes it anew:",
            f"  az network nsg rule update --resource-group {spec.azure.resource_group} --nsg-name NSG --name SSH \\",
            f"    --source-address-prefixes {' '.join(spec.network.ssh_from)}",
            "The machines share one identity, a Contributor of the resource group; give it the right to read and write the runs.",
        ]
    )
    values = {
        "type": "azure",
        "location": spec.azure.location,
        "resource_group": spec.azure.resource_group,
        "use_internal_ips": True,
        "cache_stopped_nodes": False,
    }
    return values, {("provider",): comment}


def _azure_node(spec: Spec, machine: Machine, head: bool, spot: bool) -> dict[str, Any]:
    assert spec.azure
    image = spec.azure.machine_image
    parameters: dict[str, Any] = {"vmSize": machine.instance.azure, "osDiskSize": machine.disk_gib}
    if image.startswith("/"):
        parameters["imageId"] = image
    else:
        parameters |= dict(zip(("imagePublisher", "imageOffer", "imageSku", "imageVersion"), image.split(":")))
    if spot:
        parameters |= {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": -1}}  # up to the regular price
    return {"azure_arm_parameters": parameters}
