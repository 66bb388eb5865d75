"""Bytes of an engine's tensors as they are: what `headrace.train.memory` estimates is held against them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


def measured(engine: Any) -> dict[str, int]:
    """Bytes of an engine's tensors as they are: `parameters`, `gradients` and `optimizer`, memory that is shared counted once.

    To be called between two micro-batches of a step, or just behind the last one's backward pass, before the update: at other times
    there are no gradients.
    """
    weights = list(engine.module.parameters())
    seen = _Seen()
    return {
        "parameters": seen.add(tensor for weight in weights for tensor in (weight.data, getattr(weight, "ds_tensor", None))),
        "optimizer": seen.add([*_masters(engine), *_tensors(list(engine.basic_optimizer.state.values()))]),
        "gradients": seen.add(_gradients(engine, weights)),
    }


def _masters(engine: Any) -> list[Tensor]:
    """What AdamW updates on this rank: masters, or at ZeRO 0 in fp32 the weights themselves."""
    if engine.zero_optimization_stage() == 3:
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    return [tensor for group in engine.basic_optimizer.param_groups for tensor in group["params"]]


def _gradients(engine: Any, weights: Iterable[Tensor]) -> Iterator[Tensor | None]:
    for tensor in (*weights, *_masters(engine)):
        yield from (tensor.grad, getattr(tensor, "grad_accum", None))
    for name in (
        "averaged_gradients",  # of ZeRO 2, a list for each group
        "all_grad_tensors",
        "accumulated_grads_in_cpu",  # of offload
        "fp32_groups_gradients_flat",  # of BF16_Optimizer
        "grad_partitions_flat_buffer",  # of ZeRO 3
    ):
        yield from _tensors(getattr(engine.optimizer, name, None))


def _tensors(found: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists and mappings."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, dict):
        yield from (tensor for value in found.values() for tensor in _tensors(value))
    elif isinstance(found, list | tuple):
        yield from (tensor for value in found for tensor in _tensors(value))


class _Seen:
    """Ranges of memory that have been counted."""

    def __init__(self) -> None:
        self.ranges: dict[int, list[tuple[int, int]]] = {}  # by the storage's address

    def add(self, tensors: Iterable[Tensor | None]) -> int:
        """Bytes that these tensors are in and that were not counted before."""
        before = self._total()
        for tensor in tensors:
            if tensor is not None and tensor.numel():
                first = tensor.storage_offset() * tensor.element_size()
                extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
                address = tensor.untyped_storage().data_ptr()
                self.ranges.setdefault(address, []).append((first, first + extent * tensor.element_size()))
        return self._total() - before

    def _total(self) -> int:
        total = 0
        for ranges in self.ranges.values():
            end = 0
            for first, last in sorted(ranges):
                total += max(0, last - max(first, end))
                end = max(end, last)
        return total
