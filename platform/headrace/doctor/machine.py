"""The machine: memory, shared memory, disk, file descriptors, clock, compiler."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import psutil

from headrace.doctor.finding import Finding, error, ok, size, warning

WORKER_BYTES = 2 << 30  # that a data worker may take, whatever the corpus
STORE_SHARE = 0.3  # of the memory, which Ray's object store takes (ray_constants.DEFAULT_OBJECT_STORE_MEMORY_PROPORTION)
FULL_SHARE = 0.95  # of a disk, past which Ray makes no more objects (local_fs_capacity_threshold)
LITTLE_DISK = 10 << 30
FEW_DESCRIPTORS, ENOUGH_DESCRIPTORS = 1024, 4096
CGROUP = Path("/sys/fs/cgroup")
CLOCK_S = 60.0


def memory_limit(cgroup: Path = CGROUP) -> tuple[int, int]:
    """Bytes of memory that this process may use in all, and that are free: those of the machine, or less where a container's limit is."""
    machine = psutil.virtual_memory()
    try:
        limit, used = int((cgroup / "memory.max").read_text()), int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return machine.total, machine.available
    return min(machine.total, limit), min(machine.available, max(0, limit - used))


def memory(total: int, available: int, cores: int) -> Finding:
    found = f"{size(available)} free of {size(total)}, {cores} cores"
    if available < WORKER_BYTES:
        return error("memory", found, f"free some: one data worker may take {size(WORKER_BYTES)}.")
    if available < WORKER_BYTES * cores:
        fit = max(1, available // WORKER_BYTES)
        return warning("memory", found, f"{cores} data workers may take {size(WORKER_BYTES)} each; free some, or set cluster.cpus={fit}.")
    return ok("memory", found)


def shared_memory(total: int, mount: Path = Path("/dev/shm")) -> Finding:
    """/dev/shm against what Ray's object store takes by default of `total` bytes of memory."""
    wanted = int(total * STORE_SHARE)
    if not mount.is_dir():
        return warning("shared memory", f"no {mount}", "Ray keeps its objects on the disk instead, which is slower.")
    free = shutil.disk_usage(mount).free
    found = f"{size(free)} free in {mount}; Ray's object store takes up to {size(wanted)}"
    if free < wanted:
        return warning(
            "shared memory",
            found,
            f"Ray falls back to files in the temporary folder, which is slower; remount {mount} larger, or start the container with "
            f"--shm-size={-(-wanted // (1 << 30))}g.",
        )
    return ok("shared memory", found)


def disk(name: str, folder: Path) -> Finding:
    """Room where `folder` is or will be made."""
    there = folder.expanduser().absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    usage = shutil.disk_usage(there)
    share = usage.used / max(1, usage.used + usage.free)
    check, found = f"disk, {name}", f"{size(usage.free)} free of {size(usage.total)} ({share:.0%} used), {folder}"
    if not os.access(there, os.W_OK | os.X_OK):
        return error(check, f"{there} cannot be written to", "choose another folder, or have its owner let you write there.")
    if share >= FULL_SHARE:
        return error(check, found, f"free some: Ray refuses work on a disk that is {FULL_SHARE:.0%} full.")
    if usage.free < LITTLE_DISK:
        return warning(check, found, "`headrace plan CONFIG` tells what a run will need there.")
    return ok(check, found)


def temporary_folder() -> Path:
    """Where the clusters that a run starts keep sockets, logs and spilled objects; as `control.cluster` chooses it."""
    return Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())


def descriptors(limits: tuple[int, int] | None = None) -> Finding:
    """How many files a process may have open."""
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} open files a process (may be raised to {hard})"
    if soft < FEW_DESCRIPTORS:
        return error("file descriptors", found, f"ulimit -n {ENOUGH_DESCRIPTORS}: Ray's processes hold hundreds of connections each.")
    if soft < ENOUGH_DESCRIPTORS:
        return warning("file descriptors", found, f"ulimit -n {ENOUGH_DESCRIPTORS}, or more on a cluster's head.")
    return ok("file descriptors", found)


def clock(now: float | None = None) -> Finding:
    """This machine's time against what cannot be younger than now: the files of the installation, and the machine's own start."""
    now = time.time() if now is None else now
    youngest = max(path.stat().st_mtime for path in Path(__file__).parent.iterdir())
    if now + CLOCK_S < max(youngest, psutil.boot_time()):
        return error("clock", f"{_shown(now)}, before headrace was installed here", "set the clock, and have NTP keep it.")
    return ok("clock", _shown(now))


def _shown(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def compiler(found: str | None, wanted: bool) -> Finding:
    """The C++ compiler, and whether the configuration asks for one (train.compile)."""
    if found:
        return ok("C++ compiler", found)
    if wanted:
        return error(
            "C++ compiler", "none, and train.compile = true", "install g++ or clang++, name one with CXX, or set train.compile=false."
        )
    return ok("C++ compiler", "none; only train.compile=true needs one")
