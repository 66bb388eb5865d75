"""A rank's surroundings."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys

import psutil
import pytest

from headrace.train.process import choose_interface

# In the thread that Ray Train calls a worker in, as in the first one: buffers of 8 to 24 MB are taken and freed, ten times over.
ROUNDS = """
import resource, sys, threading
import torch
from headrace.train.process import keep_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_memory()

def rounds(count):
    for _ in range(count):
        held = [torch.ones(size << 18) for size in (8, 24, 16, 24)]
        del held

def work():
    rounds(8)  # until each buffer has found its place
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    rounds(10)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[2] == "thread":
    other = threading.Thread(target=work)
    other.start()
    other.join()
else:
    work()
"""


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself what it keeps")
PAGES = 10 * (72 << 20) // resource.getpagesize()


# What glibc would decide as it goes, and by where the kernel put the heap, is decided: every buffer is asked of the system and given back.
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20), "MALLOC_TOP_PAD_": "0"}


def faults(kept: str, place: str) -> int:
    """Pages that the kernel had to hand out in ten rounds."""
    command = [sys.executable, "-c", ROUNDS, kept, place]
    return int(subprocess.run(command, env={**os.environ, **GIVES_BACK}, capture_output=True, text=True, check=True).stdout)


@glibc
@pytest.mark.parametrize("place", ["main", "thread"])
def test_freed_memory_is_kept(place: str) -> None:
    assert faults("kept", place) < PAGES / 20


@glibc
@pytest.mark.parametrize("place", ["main", "thread"])
def test_without_it_all_is_given_back(place: str) -> None:
    assert faults("given back", place) > PAGES / 20


def test_gloo_is_told_the_interface_of_the_node_s_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    choose_interface("203.0.113.7")  # nobody's
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    (loopback,) = [name for name, found in psutil.net_if_addrs().items() if any(each.address == "127.0.0.1" for each in found)]
    choose_interface("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == loopback
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    choose_interface("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7", "whoever has set it knows better"


IMPORTS = """
import gc, json
import torch
from headrace.train.process import import_deepspeed
import_deepspeed(torch.device("cpu"))
frozen, others = gc.get_freeze_count(), len(gc.get_objects())
made = [[] for _ in range(1000)]
import_deepspeed(torch.device("cpu"))
print(json.dumps([frozen, others, gc.get_freeze_count(), gc.isenabled()]))
"""


def test_modules_are_no_work_for_the_collector_and_what_comes_later_is() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    frozen, others, at_last, collects = json.loads(done.stdout.splitlines()[-1])
    assert frozen > 200_000 and others < 1000
    assert at_last < frozen + 1000 and collects, "the lists made in between are not among them"
