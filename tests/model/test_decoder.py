import math

import pytest
import torch

from headrace.model import DecoderConfig, build_model, decoder_aux
from headrace.model.decoder import initial_weight

CONFIG = DecoderConfig(layers=2, hidden=32, heads=4, kv_heads=2).sized(23, 16)


def test_names_and_shapes_are_the_canonical_ones() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in build_model(CONFIG, 0).named_parameters()}
    assert shapes == {
        "embed.weight": (23, 32),
        **{
            f"blocks.{index}.{name}": shape
            for index in range(2)
            for name, shape in {
                "attention_norm.weight": (32,),
                "attention.qkv.weight": (64, 32),
                "attention.out.weight": (32, 32),
                "mlp_norm.weight": (32,),
                "mlp.gate_up.weight": (192, 32),
                "mlp.down.weight": (32, 96),
            }.items()
        },
        "head.norm.weight": (32,),
        "head.weight": (23, 32),
    }


def test_a_token_does_not_see_what_follows_it() -> None:
    model = build_model(CONFIG, 0)
    tokens = torch.randint(1, 23, (1, 12), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 22 + 1
    before, after = (model(t, decoder_aux(t, eos=0)) for t in (tokens, changed))
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=0)
    assert (before[:, 7:] - after[:, 7:]).abs().amax(-1).min() > 1e-4


def test_packed_documents_get_the_logits_that_each_gets_alone() -> None:
    model = build_model(CONFIG, 0)
    documents = [[3, 9, 4, 0], [8, 0], [5, 6, 7, 8, 9, 0]]
    packed = torch.tensor([[token for document in documents for token in document]])
    alone = torch.cat([model(torch.tensor([d]), decoder_aux(torch.tensor([d]), 0)) for d in documents], dim=1)
    torch.testing.assert_close(model(packed, decoder_aux(packed, 0)), alone, rtol=1e-5, atol=1e-6)


def test_the_layers_one_by_one_are_the_model() -> None:
    model = build_model(CONFIG, 0)
    tokens = torch.randint(0, 23, (2, 9), generator=torch.Generator().manual_seed(1))
    hidden, aux = tokens, decoder_aux(tokens, 0)
    for _, layer in model.layers():
        hidden, aux = layer(hidden, aux)
    torch.testing.assert_close(hidden, model(tokens, decoder_aux(tokens, 0)), rtol=0, atol=0)
    assert [name for name, _ in model.layers()] == ["embed", "blocks.0", "blocks.1", "head"]


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    model = build_model(CONFIG, 5)
    for name, weight in reversed(list(model.named_parameters())):
        assert torch.equal(weight, initial_weight(CONFIG, 5, name, tuple(weight.shape)))
    deeper = build_model(CONFIG.model_copy(update={"layers": 3}), 5)
    assert torch.equal(model.blocks[1].attention.qkv.weight, deeper.blocks[1].attention.qkv.weight)
    assert not torch.equal(model.embed.weight, build_model(CONFIG, 6).embed.weight)
    assert not torch.equal(model.blocks[0].mlp.gate_up.weight, model.blocks[1].mlp.gate_up.weight)


def test_initial_weights_have_the_published_spread() -> None:
    wide = CONFIG.model_copy(update={"hidden": 256, "layers": 8})
    assert float(initial_weight(wide, 0, "embed.weight", (400, 256)).std()) == pytest.approx(0.02, rel=0.01)
    assert float(initial_weight(wide, 0, "blocks.0.mlp.down.weight", (256, 700)).std()) == pytest.approx(0.02 / math.sqrt(16), rel=0.01)
    assert initial_weight(wide, 0, "head.norm.weight", (256,)).tolist() == [1.0] * 256


def test_initial_weights_are_pinned() -> None:
    # Not by digest: the last bit of a logarithm differs between processors.
    assert initial_weight(CONFIG, 7, "embed.weight", (23, 32))[0, :3].tolist() == pytest.approx(
        [-0.0523236, 0.0302575, 0.0237043], abs=1e-7
    )
    assert initial_weight(CONFIG, 7, "blocks.1.mlp.down.weight", (32, 96))[31, -3:].tolist() == pytest.approx(
        [-0.0125553, 0.0085334, 0.0109000], abs=1e-7
    )


def test_tied_embeddings_are_one_weight() -> None:
    model = build_model(CONFIG.model_copy(update={"tied_embeddings": True}), 0)
    assert model.head.weight is model.embed.weight
    assert "head.weight" not in dict(model.named_parameters())
