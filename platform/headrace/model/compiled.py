"""Blocks whose arithmetic is compiled into fewer kernels: norms, rotations and gates no longer go through memory one by one."""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from headrace.model.decoder import Block
from headrace.model.encoder_decoder import DecoderBlock
from headrace.model.recompute import Layer, Recompute, settings

COMPILERS = ("g++", "clang++", "c++")


def compiled(layer: nn.Module, mode: Recompute) -> Layer:
    """The layer as it is to be called, compiled at its first call; embedding and head, mostly one product, are left alone.

    Blocks of equal sizes share the compiled code. Masks and rotations are derived outside of it: what they depend on is in the data.

    Args:
        mode: as for `recomputed`; inside, so that the compiler plans with it.
    """
    if not isinstance(layer, Block | DecoderBlock):
        return layer
    body: Any = layer.body

    def run(hidden: Tensor, aux: Tensor, shared: Any) -> Tensor:
        return body(hidden, aux, shared) if mode == "none" else checkpoint(body, hidden, aux, shared, **settings(mode))

    compiled_run = torch.compile(run)

    def call(hidden: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:
        return compiled_run(hidden, aux, layer.derived(hidden, aux)), aux

    return call


def compiler() -> str | None:
    """The C++ compiler that torch's own needs, for kernels on a CPU and for what starts them on a GPU; None if there is none."""
    wanted = os.environ.get("CXX")
    return next((found for name in ((wanted,) if wanted else COMPILERS) if (found := shutil.which(name))), None)
