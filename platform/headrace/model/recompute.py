"""Activation checkpointing: what the backward pass needs of a block is computed again rather than kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from headrace.model.decoder import Block
from headrace.model.encoder_decoder import DecoderBlock

Recompute = Literal["none", "block", "selective"]
Layer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_aten = torch.ops.aten
PRODUCTS = {
    _aten.mm.default,
    _aten.bmm.default,
    _aten.addmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}
PACKED_PRODUCT = "torch_attn._varlen_attn.default"  # known by name: it is there only once it has been used


def recomputed(layer: nn.Module, mode: Recompute) -> Layer:
    """The layer as it is to be called.

    Args:
        mode: `none` keeps everything; `block` keeps a block's input alone (Chen et al. 2016, arXiv:1604.06174); `selective` keeps the
            outputs of its matrix products, too, so that only what is cheap is done twice. Embedding and head are never done twice.
    """
    if mode == "none" or not isinstance(layer, Block | DecoderBlock):
        return layer
    return functools.partial(checkpoint, layer, **settings(mode))


def settings(mode: Recompute) -> dict[str, Any]:
    """Arguments of torch's `checkpoint`."""
    # Masks of dropout are a function of aux: there is no random state to restore.
    found: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if mode == "selective":
        found["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)
    return found


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    product = operation in PRODUCTS or str(operation) == PACKED_PRODUCT
    return CheckpointPolicy.MUST_SAVE if product else CheckpointPolicy.PREFER_RECOMPUTE
