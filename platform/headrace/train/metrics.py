"""RUN/train/metrics.jsonl: a line an optimizer step, each step once, whatever restarts lie between."""

from __future__ import annotations

from pathlib import Path

import torch

from headrace import storage

# Dense bf16 peaks in FLOP/s, from the vendors' data sheets. No peak is known of a CPU or in fp32, so no utilisation is given there.
PEAKS = {"H200": 989e12, "H100": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12, "B200": 2250e12, "L40S": 362e12}


def drop_after(path: Path, step: int) -> None:
    """Forget the lines of steps behind `step`: a resume takes those steps again. A torn last line goes, too."""
    if storage.is_remote(path) or path.is_file():
        storage.rewrite_lines(path, [line for line in storage.read_lines(path) if line["step"] <= step])


def peak_flops(where: torch.device, precision: str) -> float | None:
    """Peak of one device in FLOP/s; None where it is not known."""
    if where.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(where)
    return next((peak for key, peak in PEAKS.items() if key in name), None)
