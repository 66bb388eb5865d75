import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from headrace.config import Config, ConfigError, validate
from headrace.model import (
    DecoderConfig,
    EncoderDecoderConfig,
    ModelSpec,
    SizedDecoder,
    SizedEncoderDecoder,
    flops_per_token,
    model_config,
    parameter_count,
)
from headrace.model.aux import packed_aux
from headrace.model.sequential import SequentialModel


def test_llama_7b_has_its_published_sizes() -> None:  # Touvron et al. 2023, arXiv:2302.13971, table 2: 6.7B
    config = DecoderConfig(layers=32, hidden=4096, heads=32, mlp=11008).sized(32_000, 2048)
    assert parameter_count(config) == 6_738_415_616  # the published checkpoint's
    assert DecoderConfig(layers=1, hidden=4096, heads=32).mlp_size == 10_928  # 8/3 of 4096 = 10,922.7


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_the_count_is_that_of_the_tensors(tied: bool, kv_heads: int | None) -> None:
    config = DecoderConfig(layers=3, hidden=48, heads=4, kv_heads=kv_heads, tied_embeddings=tied).sized(101, 16)
    assert parameter_count(config) == sum(parameter.numel() for parameter in SequentialModel(config).parameters())


def test_arithmetic_of_a_token_is_six_per_weight_and_the_scores() -> None:
    config = DecoderConfig(layers=2, hidden=8, heads=2, mlp=16).sized(10, 32)
    matrices = 2 * (3 * 8 * 8 + 8 * 8 + 3 * 8 * 16) + 10 * 8
    assert flops_per_token(config) == 6 * matrices + 12 * 2 * 8 * 32


def test_a_preset_gives_the_sizes_that_are_not_given() -> None:
    config = validate(DecoderConfig, {"preset": "1b", "layers": 2, "kv_heads": None}, "f.yaml")
    assert (config.layers, config.hidden, config.heads, config.kv_heads, config.mlp) == (2, 2048, 32, 8, 8192)
    assert validate(DecoderConfig, config.model_dump(), "f.yaml") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden": 100, "heads": 3}, "hidden = 102 is the next that fits"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads = 3 does not divide heads = 4; one of [1, 2, 4] does"),
        ({"preset": "1bn"}, "did you mean '1b'"),
        ({"head": 4}, "head: unknown key; did you mean 'heads'?"),
    ],
)
def test_impossible_sizes_are_refused_with_the_way_out(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        validate(DecoderConfig, values, "f.yaml")
    assert message in str(refusal.value)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_the_count_of_an_encoder_decoder_is_that_of_the_tensors(tied: bool, kv_heads: int | None) -> None:
    config = EncoderDecoderConfig(layers=3, encoder_layers=2, hidden=48, heads=4, kv_heads=kv_heads, tied_embeddings=tied).sized(101, 16)
    assert parameter_count(config) == sum(parameter.numel() for parameter in SequentialModel(config).parameters())


@pytest.mark.parametrize(
    "config",
    [
        DecoderConfig(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48).sized(40, 16),
        EncoderDecoderConfig(layers=2, encoder_layers=3, hidden=32, heads=4, kv_heads=2, mlp=48).sized(40, 16),
    ],
)
def test_arithmetic_is_that_of_the_products_that_torch_counts(config: SizedDecoder | SizedEncoderDecoder) -> None:
    model, length = SequentialModel(config), config.sequence_length
    tokens = torch.ones(1, length, dtype=torch.long)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens, packed_aux(tokens, 0))
    assert flops_per_token(config) * length == 3 * counter.get_total_flops()  # the backward pass computes twice as much


class Holder(Config):
    """As a run's configuration holds a model."""

    model: ModelSpec = DecoderConfig()


def test_the_architecture_chooses_the_sizes_and_a_decoder_need_not_say_so() -> None:
    assert validate(Holder, {"model": {"layers": 2}}, "f.yaml").model == DecoderConfig(layers=2)
    both = validate(Holder, {"model": {"architecture": "encoder_decoder", "encoder_layers": 2}}, "f.yaml").model
    assert both == EncoderDecoderConfig(encoder_layers=2)
    assert validate(Holder, Holder(model=both).model_dump(mode="json"), "f.yaml").model == both


@pytest.mark.parametrize("kind", [DecoderConfig, EncoderDecoderConfig])
def test_a_checkpoint_s_record_is_read_as_what_it_was(kind: type[DecoderConfig] | type[EncoderDecoderConfig]) -> None:
    config = kind(layers=2, hidden=32, heads=2).sized(40, 16)
    assert model_config(config.model_dump(mode="json")) == config
    assert isinstance(config, SizedDecoder) == (kind is DecoderConfig)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "recurrent"}, "f.yaml: model: architecture is none of 'decoder' and 'encoder_decoder'"),
        ({"encoder_layers": 2}, "f.yaml: model.encoder_layers: unknown key"),
        ({"architecture": "encoder_decoder", "head": 2}, "f.yaml: model.head: unknown key; did you mean 'heads'?"),
        ({"dropout": 1.0}, "f.yaml: model.dropout = 1.0"),
    ],
)
def test_mistakes_in_a_model_are_reported_where_they_are(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        validate(Holder, {"model": values}, "f.yaml")
    assert message in str(refusal.value)
