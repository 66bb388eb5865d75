"""Machines that are there already: this one alone, by a script; or those that ssh reaches, by Ray's launcher."""

from __future__ import annotations

import json
from typing import Any

from headrace.capacity import POOL_LABEL, growth
from headrace.cluster.commands import AUTH, LOOPBACK, NODE, PORT, head_command, resources_flag, worker_command
from headrace.cluster.launcher import CONFIG_FLAG, containers, pool_resources, starts, totals
from headrace.cluster.spec import Spec
from headrace.cluster.yaml_text import write
from headrace.control.cluster import pools


def render(spec: Spec) -> dict[str, str]:
    """The file, by its name."""
    if spec.local.head is None:
        return {f"{spec.name}-local.sh": script(spec)}
    return {f"{spec.name}-local.yaml": write(document(spec), {("worker_start_ray_commands", 1): WHICH}, _header(spec))}


WHICH = "Ray's launcher knows no node types here: each machine finds its pool by its own address."


def document(spec: Spec) -> dict[str, Any]:
    """The launcher's values for machines with fixed addresses."""
    workers = spec.local.workers.model_dump()
    return {
        "cluster_name": spec.name,
        "metadata": {"runs": spec.runs},
        "provider": {"type": "local", "head_ip": spec.local.head, "worker_ips": [address for pool in workers.values() for address in pool]},
        "auth": {"ssh_user": spec.local.ssh_user, **({"ssh_private_key": spec.local.ssh_key} if spec.local.ssh_key else {})},
        **containers(spec),
        **starts(spec, _worker_command(spec)),
        "head_start_ray_commands": ["ray stop", head_command(_labels(spec), CONFIG_FLAG)],
    }


def _labels(spec: Spec) -> str:
    """`--labels` of the head: how far the cluster grows; its machines join one after the other."""
    machines = spec.local.workers.model_dump()
    offers = {name: pool_resources(pool.cpus, pool.gpus, name, pool.slots) for name, pool in spec.pools.items()}
    most = growth(totals((len(machines[name]), offer) for name, offer in offers.items()))
    return f"--labels={','.join(f'{label}={total}' for label, total in most.items())}"


def _worker_command(spec: Spec) -> str:
    cases = []
    for name, addresses in spec.local.workers.model_dump().items():
        pool = spec.pools[name]
        if addresses:
            pattern = "|".join(f'*" {address} "*' for address in addresses)
            cases.append(f"{pattern}) cpus={pool.cpus} gpus={pool.gpus} name={name} pool='{json.dumps({name: pool.slots})}';;")
    cases.append('*) echo "this machine belongs to no pool" >&2; exit 1;;')
    start = worker_command("--num-cpus=$cpus", "--num-gpus=$gpus", '--resources="$pool"', f"--labels={POOL_LABEL}=$name")
    return f'case " $(hostname -I) " in {" ".join(cases)} esac; {start}'


def script(spec: Spec) -> str:
    """A cluster of this machine alone, in the foreground: Ctrl-C ends it, and only it."""
    cpus, resources = pools(spec.local.cpus, spec.local.gpus or spec.local.cpus)
    exports = "\n".join(f"export {name}={value}" for name, value in (AUTH | {"RAY_AUTH_TOKEN_PATH": spec.token} | NODE).items())
    flags = [
        *("--head", "--block", f"--node-ip-address={LOOPBACK}", f"--port={PORT}", f"--dashboard-host={LOOPBACK}"),
        *(f"--num-cpus={cpus}", f"--num-gpus={spec.local.gpus}", resources_flag(resources)),
    ]
    return f"""#!/usr/bin/env bash
# {spec.name} on this machine: made by `headrace cluster render --target local`; change the spec, not this file.
# It stays in the foreground, Ctrl-C ends it. Runs go to it from a shell with the same RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH:
#   headrace submit RUN.yaml --address http://{LOOPBACK}:8265
# (`headrace run` alone starts a cluster of its own and ends it; this one serves several runs.)
set -euo pipefail
{exports}
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
  mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
  (umask 077; python -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH")
fi
# More CPUs than cores, in pools that cannot take each other's: training holds its cores for hours, and a score must still find a slot.
exec ray start {" ".join(flags)}
"""


def _header(spec: Spec) -> str:
    return f"""
{spec.name} on machines that ssh reaches: made by `headrace cluster render --target local`; change the spec, not this file.
Each has Docker (with NVIDIA's container toolkit where there are GPUs), and a firewall that lets in the others and your ssh alone.

  (umask 077; python -c 'import secrets; print(secrets.token_hex(32))' > {spec.token})     once
  ray up {spec.name}-local.yaml; ray dashboard {spec.name}-local.yaml     forwards the dashboard from the head's loopback to port 8265
  RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={spec.token} headrace submit RUN.yaml out={spec.runs}/NAME --address http://127.0.0.1:8265
"""
