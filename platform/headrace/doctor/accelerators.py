"""GPUs with their driver and libraries, and whether two processes can add up a tensor, as ranks do all the time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from headrace.doctor.finding import Finding, error, ok, size

REDUCE_TIMEOUT_S = 120.0
DEVICE = Path("/dev/nvidia0")


def gpus() -> Finding:
    """What torch sees, and whether it should see more."""
    count = torch.cuda.device_count()
    if not count:
        if DEVICE.exists():
            return error(
                "GPU",
                f"{DEVICE} is there, but torch {torch.__version__} sees none",
                "look at CUDA_VISIBLE_DEVICES, at what `nvidia-smi` says, and whether this torch was built for CUDA.",
            )
        return ok("GPU", "none; training runs on the CPU")
    names = sorted({torch.cuda.get_device_name(index) for index in range(count)})
    least = min(torch.cuda.get_device_properties(index).total_memory for index in range(count))
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return ok("GPU", f"{count} x {', '.join(names)}, {size(least)}; driver {_driver()}, CUDA {torch.version.cuda}, NCCL {nccl}")


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.SubprocessError):
        return "of unknown version (no nvidia-smi)"


def all_reduce(backend: str, ranks: int) -> Finding:
    """Have processes of `headrace.doctor.all_reduce` add up a tensor."""
    check, started = f"all-reduce, {backend}", time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headrace-doctor-") as folder, contextlib.ExitStack() as stack:
        arguments = [sys.executable, "-m", "headrace.doctor.all_reduce", backend, str(ranks), str(Path(folder) / "store")]
        processes = [
            stack.enter_context(subprocess.Popen([*arguments, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
            for rank in range(ranks)
        ]
        deadline = started + REDUCE_TIMEOUT_S
        try:
            said = [process.communicate(timeout=max(0.1, deadline - time.monotonic()))[0] for process in processes]
        except subprocess.TimeoutExpired:
            said = [f"no sum within {REDUCE_TIMEOUT_S:.0f} s"]
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
    if len(said) == ranks and all(process.returncode == 0 for process in processes):
        return ok(check, f"{ranks} process{'es' * (ranks > 1)} agree, {time.monotonic() - started:.0f} s with their start")
    why = next((text.strip().splitlines()[-1] for text in said if text.strip()), "no reason given")
    variable = "NCCL_SOCKET_IFNAME" if backend == "nccl" else "GLOO_SOCKET_IFNAME"
    more = "; NCCL_DEBUG=INFO tells more" if backend == "nccl" else ""
    return error(check, why, f"name the network interface that ranks are to use: {variable}=lo on one machine{more}.")


def reductions() -> Iterator[Finding]:
    """gloo between two processes; NCCL too between two where there are two GPUs, and alone on a single one."""
    yield all_reduce("gloo", 2)
    if devices := torch.cuda.device_count():
        yield all_reduce("nccl", min(devices, 2))
