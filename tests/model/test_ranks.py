"""Any tensor-parallel layout computes what one rank computes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from headrace.model import DecoderConfig, EncoderDecoderConfig, model_config
from headrace.model.sequential import build_model, whole_shapes
from headrace.model.tensor_parallel import joined
from headrace.objectives import CausalLM, Continuation

SCRIPT = Path(__file__).with_name("run_ranks.py")
WORLD = 4
VOCAB, LENGTH = 23, 16  # a vocabulary that divides neither by 2 nor by 4
SIZES = {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 4, "mlp": 44}
OBJECTIVES = {"decoder": CausalLM(), "encoder_decoder": Continuation()}

Found = dict[str, torch.Tensor]


def case(
    architecture: str, size: int, sequence: bool, dropout: float, recompute: str, dtype: str = "float32", **sizes: Any
) -> dict[str, Any]:
    kind = {"decoder": DecoderConfig, "encoder_decoder": EncoderDecoderConfig}[architecture]
    config = kind(**{**SIZES, **sizes}, dropout=dropout).sized(VOCAB, LENGTH)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, VOCAB, (3, LENGTH + 1), generator=generator)
    # Documents of which some end in the encoder's half, some in the decoder's, and some begin there; the last row is one document.
    tokens[0, [4, 10, 13]] = tokens[1, [7, 8]] = 0
    parts = (
        architecture,
        size,
        "sequence" * sequence,
        "dropout" * (dropout > 0),
        recompute,
        dtype,
        *(f"{k}={v}" for k, v in sizes.items()),
    )
    return {
        "name": "-".join(str(part) for part in parts if part),
        "size": size,
        "model": config.model_dump(mode="json"),
        "objective": OBJECTIVES[architecture].name,
        "tokens": tokens.tolist(),
        "samples": [5, 6, (1 << 33) + 5],
        "sequence": sequence,
        "recompute": recompute,
        "dtype": dtype,
    }


def cases() -> list[dict[str, Any]]:
    both = (False, True)
    found = [case(*each) for each in itertools.product(OBJECTIVES, (2,), both, (0.0, 0.3), ("none", "block", "selective"))]
    for architecture, sequence in itertools.product(OBJECTIVES, both):
        found += [
            case(architecture, 2, sequence, 0.0, "none", tied_embeddings=True),
            case(architecture, 2, sequence, 0.0, "none", "bfloat16"),
            case(architecture, 4, sequence, 0.3, "none"),
        ]
    return [*found, *(case(architecture, 2, True, 0.0, "none", kv_heads=2) for architecture in OBJECTIVES)]


CASES = {each["name"]: each for each in cases()}


def logits() -> Found:
    generator = torch.Generator().manual_seed(0)
    values = 10 * torch.randn(50, VOCAB, generator=generator)
    return {
        "float32": values,
        "bfloat16": values.bfloat16(),
        "targets": torch.randint(0, VOCAB, (50,), generator=generator),
        "weights": (torch.rand(50, generator=generator) < 0.7).long(),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every rank has left what it got."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "cases.json").write_text(json.dumps(cases()))
    save_file(logits(), folder / "logits.safetensors")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(WORLD)}
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD)
    ]
    outputs = [process.communicate(timeout=500)[0] for process in started]
    assert [process.returncode for process in started] == [0] * WORLD, "\n".join(outputs)
    return folder


def alone(some: dict[str, Any]) -> Found:
    """Loss, logits, weights and gradients of the plain model, nothing computed again."""
    config = model_config(some["model"])
    model, objective = build_model(config, 3).to(getattr(torch, some["dtype"])), OBJECTIVES[config.architecture]
    example = objective.corrupt(torch.tensor(some["tokens"]), 0, torch.tensor(some["samples"]))
    logits = model(example.tokens, example.aux)
    nats, _ = objective.loss(logits, example)
    (nats * 0.1).backward()
    found = {"nats": nats.detach(), "logits": logits.detach()}
    for name, weight in model.named_weights():
        found |= {f"weight/{name}": weight.detach(), f"gradient/{name}": weight.grad}
    return found


@pytest.mark.parametrize("name", CASES)
def test_ranks_compute_what_one_does(folder: Path, name: str) -> None:
    some, expected = CASES[name], alone(CASES[name])
    ranks = [load_file(folder / f"{name}.{rank}.safetensors") for rank in range(some["size"])]
    exact = some["dtype"] == "float32"
    assert all(found.keys() == expected.keys() for found in ranks)
    for found in ranks:
        torch.testing.assert_close(found["nats"], expected["nats"], rtol=1e-5 if exact else 1e-3, atol=0)
    logits = torch.cat([found["logits"] for found in ranks], -1)
    assert bool((logits[..., VOCAB:] == -torch.inf).all()) and logits.shape[-1] == -(-VOCAB // len(ranks)) * len(ranks)
    tolerance = 1e-5 if exact else 2e-3
    torch.testing.assert_close(logits[..., :VOCAB], expected["logits"], rtol=1e-5 if exact else 0.05, atol=tolerance)
    for name, weight in whole_shapes(model_config(some["model"])).items():
        for kind in ("weight", "gradient"):
            pieces = [found[f"{kind}/{name}"] for found in ranks]
            if weight.shard is None:
                assert all(torch.equal(piece, pieces[0]) for piece in pieces), f"{kind} of {name} differs between ranks"
            whole = pieces[0] if weight.shard is None else joined(pieces, weight.shard)
            reference = expected[f"{kind}/{name}"]
            assert whole.shape == weight.shape == reference.shape and whole.dtype == reference.dtype
            if kind == "weight":
                assert torch.equal(whole, reference), name
            else:
                difference = (whole.float() - reference.float()).norm() / reference.float().norm()
                assert float(difference) < (1e-5 if exact else 0.03), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [2, 4])
def test_a_cut_vocabulary_costs_the_same_nats(folder: Path, size: int, dtype: str) -> None:
    shared = logits()
    reference, weights = shared[dtype].float().requires_grad_(), shared["weights"].bool()
    expected = F.cross_entropy(reference[weights], shared["targets"][weights], reduction="sum")
    (gradient,) = torch.autograd.grad(expected * 0.25, reference)
    ranks = [load_file(folder / f"logits-{size}.{rank}.safetensors") for rank in range(size)]
    for found in ranks:
        torch.testing.assert_close(found[f"nats/{dtype}"], expected.detach(), rtol=1e-5, atol=0)
    whole = torch.cat([found[f"gradient/{dtype}"] for found in ranks], 1)
    assert whole.dtype == shared[dtype].dtype and not whole[:, VOCAB:].any()
    tolerance = 1e-6 if dtype == "float32" else 2e-3
    torch.testing.assert_close(whole[:, :VOCAB].float(), gradient, rtol=tolerance, atol=tolerance)
