"""Compiled blocks compute what plain ones do. Dynamo and its autograd run for real; of the back ends the one that needs no C++."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from headrace.model import DecoderConfig, EncoderDecoderConfig, ModelConfig
from headrace.model import compiled as subject
from headrace.model.compiled import compiler
from headrace.model.sequential import SequentialModel, build_model
from headrace.objectives import CausalLM, Continuation

SIZES: dict[str, Any] = {"layers": 3, "hidden": 16, "heads": 4, "kv_heads": 2}
CASES: list[tuple[ModelConfig, str]] = [
    (DecoderConfig(**SIZES).sized(31, 12), "none"),
    (DecoderConfig(**SIZES, dropout=0.2).sized(31, 12), "selective"),
    (EncoderDecoderConfig(**SIZES, encoder_layers=3, dropout=0.2).sized(31, 12), "block"),
]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """The graphs that are compiled."""
    backend = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(subject.torch, "compile", functools.partial(torch.compile, backend=backend, fullgraph=True))
    torch.compiler.reset()
    yield backend
    torch.compiler.reset()


@pytest.mark.parametrize(("config", "mode"), CASES, ids=lambda case: case if isinstance(case, str) else case.architecture)
def test_losses_and_gradients_are_those_of_plain_blocks(counted: CompileCounterWithBackend, config: ModelConfig, mode: Any) -> None:
    objective = CausalLM() if config.architecture == "decoder" else Continuation()
    plain = build_model(config, 1, recompute=mode)
    ours = SequentialModel(config, 1, recompute=mode, compile=True)
    ours.load_state_dict(plain.state_dict())
    assert [name for name, _ in ours.named_weights()] == [name for name, _ in plain.named_weights()]
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        tokens = torch.randint(1, 31, (2, 13), generator=generator)
        if number % 2:  # packed, so that there is a mask
            tokens[0, 4] = tokens[1, 9] = 0
        example = objective.corrupt(tokens, 0, torch.tensor([2 * number, 2 * number + 1]))
        found = []
        for model in (plain, ours):
            model.zero_grad()
            nats, _ = objective.loss(model(example.tokens, example.aux), example)
            nats.backward()
            found.append([nats.detach(), *(weight.grad for _, weight in model.named_weights())])
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    # Blocks of a kind share their graphs: one for rows of one document, one for packed rows.
    assert counted.frame_count == (2 if config.architecture == "decoder" else 4)


def test_only_blocks_are_compiled(counted: CompileCounterWithBackend) -> None:
    model = build_model(DecoderConfig(**SIZES).sized(31, 12), 1)
    assert [name for name, layer in model.layers() if subject.compiled(layer, "none") is layer] == ["embed", "head"]


def test_a_compiler_is_looked_for_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler() is None
    made = tmp_path / "clang++"
    made.touch(0o755)
    assert compiler() == str(made)
    monkeypatch.setenv("CXX", "icpx")
    assert compiler() is None
