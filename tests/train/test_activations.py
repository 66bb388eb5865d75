"""What a forward pass really keeps, against the estimate."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headrace.model import DecoderConfig, EncoderDecoderConfig, ModelConfig
from headrace.model.sequential import build_model
from headrace.objectives import CausalLM, Continuation
from headrace.train.activations import Passes
from headrace.train.config import TrainConfig
from headrace.train.layout import Layout
from headrace.train.memory import largest_rank, stage_layers
from headrace.train.stages import layer_weights

MICRO, LENGTH, VOCABULARY = 2, 96, 160
SIZES = {"layers": 3, "hidden": 64, "heads": 4, "kv_heads": 2, "mlp": 176}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Made(TorchDispatchMode):
    """Remembers every tensor that is made, without keeping it."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, operation: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                reference = StorageWeakRef(tensor.untyped_storage())
                self.storages[reference.cdata] = reference, tensor.untyped_storage().nbytes()
        return made

    def alive(self, but: torch.nn.Module) -> int:
        """Bytes that something still holds on to, other than the weights."""
        gc.collect()
        weights = {StorageWeakRef(weight.untyped_storage()).cdata for weight in but.parameters()}
        return sum(size for key, (reference, size) in self.storages.items() if key not in weights and not reference.expired())


def train_config(**values: Any) -> TrainConfig:
    return TrainConfig.model_validate({"batch": {"global": 8 * MICRO, "micro": MICRO}, **values})


@pytest.mark.parametrize("recompute", ["none", "block", "selective"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "spec",
    [DecoderConfig(**SIZES), DecoderConfig(**SIZES, dropout=0.1), EncoderDecoderConfig(**SIZES, encoder_layers=3)],
    ids=["decoder", "dropout", "encoder-decoder"],
)
def test_a_forward_pass_keeps_what_was_estimated(spec: DecoderConfig | EncoderDecoderConfig, precision: str, recompute: str) -> None:
    model = spec.sized(VOCABULARY, LENGTH)
    built = build_model(model, 0, recompute=recompute).to(DTYPES[precision])
    tokens = torch.randint(1, VOCABULARY, (MICRO, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    tokens[:, :: LENGTH // 4] = 0  # several documents in a row
    objective = CausalLM() if isinstance(spec, DecoderConfig) else Continuation()
    example = objective.corrupt(tokens, 0)
    with Made() as made:
        nats, _ = objective.loss(built(example.tokens, example.aux), example)
    config = train_config(precision=precision, activation_checkpointing=recompute)
    estimated = Passes(model, config, Layout(), list(layer_weights(model)), on_gpu=False).kept()
    assert estimated == pytest.approx(made.alive(built), rel=0.1)
    assert nats.requires_grad


def test_the_first_stage_keeps_a_micro_batch_for_each_stage_behind_it() -> None:
    model = DecoderConfig(**SIZES).sized(VOCABULARY, LENGTH)
    config, layers = train_config(), stage_layers(model, 2, 0)
    passes = Passes(model, config, Layout(pipeline=2), layers, on_gpu=False)
    assert passes.peak(2) == 2 * passes.kept()
    assert largest_rank(model, config.model_copy(update={"layout": Layout(pipeline=2)}), 1, on_gpu=False).activations >= passes.peak(2)


def activations(model: ModelConfig, layout: dict[str, Any], **values: Any) -> int:
    return largest_rank(model, train_config(layout=layout, **values), 1, on_gpu=True).activations


def test_sharing_and_recomputing_keep_less() -> None:
    model = DecoderConfig(**SIZES).sized(VOCABULARY, LENGTH)
    whole, tensor, sequence = (activations(model, layout) for layout in ({}, {"tensor": 2}, {"tensor": 2, "sequence": True}))
    assert sequence < tensor < whole and whole / 2.2 < sequence
    block, selective = (activations(model, {}, activation_checkpointing=how) for how in ("block", "selective"))
    assert block < selective < whole
