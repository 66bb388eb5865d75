from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headrace.model import DecoderConfig, EncoderDecoderConfig
from headrace.model.aux import packed_aux
from headrace.model.recompute import Recompute
from headrace.model.sequential import SequentialModel, build_model

CONFIGS = [
    DecoderConfig(layers=3, hidden=32, heads=4, kv_heads=2, dropout=0.2).sized(23, 16),
    EncoderDecoderConfig(layers=2, encoder_layers=1, hidden=32, heads=4, kv_heads=2, dropout=0.2).sized(23, 16),
]
MODES: tuple[Recompute, ...] = ("none", "block", "selective")


class Counted(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(function.overloadpacket).removeprefix("aten.")] += 1
        return function(*args, **(kwargs or {}))


class Made(TorchDispatchMode):
    """Remembers the storages that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return made

    def alive(self, others: Iterable[torch.Tensor]) -> int:
        """Bytes of those that are still there and belong to no other tensor, of which an operation gives a view."""
        known = {tensor.untyped_storage()._cdata for tensor in others}
        return sum(size for key, (reference, size) in self.storages.items() if key not in known and not reference.expired())


def micro_batch() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, 23, (2, 16), generator=torch.Generator().manual_seed(0))
    return tokens, packed_aux(tokens, 0, torch.tensor([8, 9]))


def backward(model: SequentialModel) -> Counter[str]:
    """What one backward pass calls."""
    loss = model(*micro_batch()).square().sum()
    with Counted() as counted:
        loss.backward()
    return counted.calls


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.architecture)
def test_gradients_are_the_same_to_the_bit_with_dropout(config: Any) -> None:
    models = [build_model(config, 4, recompute=mode) for mode in MODES]
    for model in models:
        backward(model)
    for name, weight in models[0].named_weights():
        for other in models[1:]:
            assert torch.equal(weight.grad, other.get_parameter(name).grad), name


def test_block_computes_products_again_and_selective_only_what_lies_between() -> None:
    config = CONFIGS[0].model_copy(update={"dropout": 0.0})
    plain, block, selective = (backward(build_model(config, 4, recompute=mode)) for mode in MODES)
    attention = "_scaled_dot_product_flash_attention_for_cpu"
    assert (plain[attention], block[attention], selective[attention]) == (0, 3, 0)
    # The product that ends a block is not needed by its own backward pass: three of the four are computed again.
    assert (block["mm"] - plain["mm"], selective["mm"] - plain["mm"]) == (9, 0)
    assert plain["silu"] == 0 and block["silu"] == selective["silu"] == 3


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.architecture)
def test_less_is_kept_the_more_is_computed_again(config: Any) -> None:
    def kept(mode: Recompute) -> int:
        """Bytes that are there behind the forward pass and were made in it."""
        model, inputs = build_model(config, 4, recompute=mode), micro_batch()
        model(*inputs)  # masks and rotations of this micro-batch, which are kept as long as it is
        with Made() as made:
            logits = model(*inputs)
        assert logits.requires_grad
        return made.alive(model.parameters())

    none, block, selective = (kept(mode) for mode in MODES)
    assert block < 0.5 * selective and selective < 0.8 * none
