"""The canonical checkpoint: logical tensors in safetensors with a checksummed manifest; any layout writes it, any layout reads it."""

from headrace.checkpoint.canonical import (
    CheckpointError,
    Reader,
    checkpoint_name,
    committed,
    digests,
    load_model,
    newest_valid,
    read_manifest,
    verify,
)

__all__ = ["CheckpointError", "Reader", "checkpoint_name", "committed", "digests", "load_model", "newest_valid", "read_manifest", "verify"]
