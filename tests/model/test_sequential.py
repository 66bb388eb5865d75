import math

import pytest
import torch

from headrace.model import DecoderConfig, EncoderDecoderConfig
from headrace.model.aux import decoder_aux
from headrace.model.sequential import SequentialModel, build_model, draw, initial_weight, layer_specs, whole_shapes
from headrace.model.tensor_parallel import TensorParallel, cut, shard_of

CONFIG = DecoderConfig(layers=2, hidden=32, heads=4, kv_heads=2).sized(23, 16)
BOTH = EncoderDecoderConfig(layers=2, encoder_layers=3, hidden=32, heads=4, kv_heads=2, mlp=44).sized(23, 16)


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


def test_names_of_an_encoder_decoder() -> None:
    assert [spec.name for spec in layer_specs(BOTH, 0)] == [
        *("embed", "encoder.0", "encoder.1", "encoder.2", "encoder_norm", "decoder.0", "decoder.1", "head")
    ]
    names = [name for name, _ in build_model(BOTH, 0).named_weights()]
    assert [name.removeprefix("decoder.1.") for name in names if name.startswith("decoder.1.")] == [
        f"{place}.weight"
        for place in (
            *("attention_norm", "attention.qkv", "attention.out", "cross_norm", "cross.query", "cross.key_value", "cross.out"),
            *("mlp_norm", "mlp.gate_up", "mlp.down"),
        )
    ]
    assert "encoder_norm.norm.weight" in names and "encoder.2.mlp.down.weight" in names


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


@pytest.mark.parametrize("config", [CONFIG, BOTH, BOTH.model_copy(update={"tied_embeddings": True})])
def test_shapes_are_known_without_the_tensors(config) -> None:
    shapes = whole_shapes(config)
    assert {name: shape.shape for name, shape in shapes.items()} == {
        name: tuple(weight.shape) for name, weight in build_model(config, 0).named_weights()
    }
    for name, (shape, shard) in ((name, (each.shape, each.shard)) for name, each in shapes.items()):
        assert (shard is None) == (len(shape) == 1), name
        assert shard is None or sum(shard.parts) == shape[shard.dim]


def test_a_layer_alone_is_drawn_as_in_the_model_and_cut() -> None:
    model, tensor = build_model(BOTH, 5), TensorParallel(None, 1, 2)
    for spec in layer_specs(BOTH, 5, tensor):
        layer = spec.build()
        draw(spec.name, layer, BOTH, 5, tensor)
        for name, weight in layer.named_parameters():
            whole, shard = model.get_parameter(f"{spec.name}.{name}"), shard_of(weight)
            assert torch.equal(weight, whole if shard is None else cut(whole, shard, 1, 2)), (spec.name, name)


def test_both_copies_of_a_tied_embedding_are_drawn_alike() -> None:
    specs = layer_specs(CONFIG.model_copy(update={"tied_embeddings": True}), 5)
    ends = [specs[0].build(), specs[-1].build()]
    for spec, layer in zip((specs[0], specs[-1]), ends):
        draw(spec.name, layer, CONFIG.model_copy(update={"tied_embeddings": True}), 5)
    assert torch.equal(ends[0].weight, ends[1].weight)


def test_branches_of_an_encoder_decoder_are_scaled_by_their_number() -> None:
    wide = BOTH.model_copy(update={"hidden": 256})  # three encoder blocks of two branches, two decoder blocks of three
    for name in ("encoder.0.mlp.down.weight", "decoder.0.attention.out.weight", "decoder.1.cross.out.weight"):
        assert float(initial_weight(wide, 0, name, (256, 700)).std()) == pytest.approx(0.02 / math.sqrt(6), rel=0.01)
    deep = wide.model_copy(update={"encoder_layers": 8})
    assert float(initial_weight(deep, 0, "encoder.0.mlp.down.weight", (256, 700)).std()) == pytest.approx(0.02 / math.sqrt(16), rel=0.01)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="heads = 4 and kv_heads = 2 must both be multiples of the tensor size, 4"):
        SequentialModel(CONFIG, 0, TensorParallel(None, 0, 4))
