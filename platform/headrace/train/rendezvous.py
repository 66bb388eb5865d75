"""Where the ranks of a group meet: a store on one address of this node; that of torch itself listens on all of them, for everybody."""

from __future__ import annotations

import ipaddress
import socket
from datetime import timedelta

import torch.distributed as dist


def listening_store(host: str, timeout: timedelta) -> dist.TCPStore:
    """A store of this process that others reach at `host`, on a port of the system's choice, and at no other address of this machine.

    A name may mean another address here than to others; then the store listens on all of them.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timeout)
    listener = socket.create_server((host, 0), family=family)
    port = listener.getsockname()[1]
    descriptor = listener.detach()  # the store's from here on
    return dist.TCPStore(host, port, is_master=True, wait_for_workers=False, timeout=timeout, master_listen_fd=descriptor)
