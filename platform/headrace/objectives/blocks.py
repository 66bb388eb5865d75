"""How much of the logits is in work at once, known to the loss and to the estimate of its memory."""

from __future__ import annotations

BLOCK_BYTES = 2 << 20  # of float32: stays in a core's cache, and a GPU's kernels are still full
GPU_BLOCK_BYTES = 512 << 20
