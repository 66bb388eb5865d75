from datetime import timedelta

import psutil
import torch.distributed as dist

from headrace.train.rendezvous import listening_store

TIMEOUT = timedelta(seconds=20)


def hosts(port):
    return {
        each.laddr.ip for each in psutil.Process().net_connections("tcp") if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    }


def test_a_store_is_met_at_its_address_and_at_no_other():
    store = listening_store("127.0.0.1", TIMEOUT)
    other = dist.TCPStore("127.0.0.1", store.port, is_master=False, timeout=TIMEOUT)
    other.set("word", "given")
    assert store.get("word") == b"given"
    assert hosts(store.port) == {"127.0.0.1"}


def test_a_name_is_met_wherever_others_take_it_to_be():
    store = listening_store("localhost", TIMEOUT)
    assert hosts(store.port) & {"::", "0.0.0.0"}
    dist.TCPStore("localhost", store.port, is_master=False, timeout=TIMEOUT).set("word", "given")
    assert store.get("word") == b"given"
