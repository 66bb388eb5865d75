from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.config import ConfigError, override, validate
from headrace.model import DecoderConfig, EncoderDecoderConfig, ModelConfig
from headrace.train.config import TrainConfig
from headrace.train.rules import breaches, bubble, check, hints, nearest_legal

README = Path(__file__).resolve().parents[2] / "README.md"
PRECISIONS = ("fp32", "bf16", "fp16")
DECODER = DecoderConfig(layers=4, hidden=64, heads=8, kv_heads=4, mlp=96).sized(97, 64)
ENCODER_DECODER = EncoderDecoderConfig(layers=2, encoder_layers=2, hidden=64, heads=8, kv_heads=4, mlp=96).sized(97, 64)
MODELS = (DECODER, ENCODER_DECODER)


def config(layout: dict[str, Any], batch: tuple[int, int] = (64, 2), **values: Any) -> TrainConfig:
    return TrainConfig.model_validate({"batch": {"global": batch[0], "micro": batch[1]}, "layout": layout, **values})


@pytest.mark.parametrize(
    ("layout", "values", "world", "told", "nearest"),
    [
        ({"tensor": 4}, {"batch": (48, 2)}, 6, "of which 6 workers make no multiple; 4 and 8 do", "train.layout.tensor=2"),
        ({"data": 2, "tensor": 2}, {}, 8, "is 4 ranks, but the world is 8 workers; set train.layout.data=4", "train.layout.data=4"),
        ({}, {"batch": (18, 4)}, 2, "train.batch.global = 18 is not a multiple of micro (4)", "train.batch.micro=3"),
        ({}, {"batch": (7, 7)}, 2, "the nearest that fits is 14", "train.layout.tensor=2"),
        (
            {"tensor": 8},
            {},
            8,
            "train.layout.tensor = 8 does not divide model.kv_heads = 4; one of [1, 2, 4] does",
            "train.layout.tensor=4",
        ),
        ({"tensor": 3}, {}, 3, "train.layout.tensor = 3 does not divide model.heads = 8", "train.layout.tensor=1 train.layout.pipeline=3"),
        ({"sequence": True}, {}, 2, "train.layout.sequence = true with tensor = 1", "train.layout.sequence=false"),
        (
            {"pipeline": 8},
            {},
            8,
            "train.layout.pipeline = 8, but the model has 4 blocks; set train.layout.pipeline=4",
            "train.layout.pipeline=4",
        ),
        ({"pipeline": 2, "zero": 2}, {}, 4, "train.layout.zero = 2 with pipeline = 2: DeepSpeed's pipelines", "train.layout.zero=1"),
        ({"pipeline": 2, "offload": True}, {}, 4, "train.layout.offload = true with pipeline = 2", "train.layout.offload=false"),
        ({"pipeline": 4}, {"batch": (8, 4)}, 4, "train.layout.pipeline = 4 with 2 micro-batches a step", "train.batch.micro=2"),
        ({"zero": 0, "offload": True}, {}, 2, "train.layout.offload = true with zero = 0", "train.layout.zero=1"),
        ({"zero": 3}, {"compile": True}, 2, "train.compile = true with zero = 3", "train.layout.zero=2"),
        ({"pipeline": 2, "zero": 0}, {"precision": "bf16"}, 2, "would be added up in bf16; set train.layout.zero=1", "train.layout.zero=1"),
        ({"zero": 0}, {"precision": "fp16"}, 2, "train.precision = fp16 with zero = 0", "train.layout.zero=1"),
    ],
)
def test_each_rule_names_field_value_and_the_nearest_legal_layout(
    layout: dict[str, Any], values: dict[str, Any], world: int, told: str, nearest: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        check(config(layout, **values), DECODER, world)
    *sentences, last = str(refusal.value).splitlines()
    assert told in "\n".join(sentences)
    assert last == f"The nearest legal layout for {world} workers: {nearest}"


def test_tied_embeddings_and_what_does_not_divide() -> None:
    tied = DECODER.model_copy(update={"tied_embeddings": True})
    assert not breaches(config({"pipeline": 2}, precision="bf16"), tied, 2)
    (told,) = breaches(config({"pipeline": 2}, precision="fp16"), tied, 2)
    assert "the two copies of the embedding would drift apart; set train.precision=bf16" in told
    (told,) = breaches(config({"tensor": 4}), DECODER.model_copy(update={"mlp": 98}), 4)
    assert told == "train.layout.tensor = 4 does not divide model.mlp = 98; model.mlp = 100 would do"
    (told,) = breaches(config({"tensor": 4, "sequence": True}), DECODER.model_copy(update={"sequence_length": 62}), 4)
    assert told == "train.layout.sequence = true: tokens.sequence_length = 62 does not divide by tensor = 4; 64 would do"


def test_each_stream_of_an_encoder_decoder_is_cut() -> None:
    packed = ENCODER_DECODER.model_copy(update={"sequence_length": 68})
    assert not breaches(config({"tensor": 2, "sequence": True}), packed, 2)
    (told,) = breaches(config({"tensor": 4, "sequence": True}), packed, 4)
    assert "tokens.sequence_length = 68 in two streams does not divide by tensor = 4; 72 would do" in told
    assert not breaches(config({"pipeline": 4}), packed, 4), "two blocks of either side"


def test_every_broken_rule_is_told_at_once() -> None:
    broken = config({"tensor": 3, "pipeline": 2, "zero": 3, "offload": True}, precision="fp16")
    assert len(breaches(broken, DECODER, 6)) == 3
    with pytest.raises(ConfigError) as refusal:
        check(broken, DECODER, 6)
    assert len(str(refusal.value).splitlines()) == 4


SIZES = st.sampled_from([1, 1, 2, 3, 4, 6, 8])
LAYOUTS = st.fixed_dictionaries(
    {
        "data": st.one_of(st.none(), SIZES),
        "tensor": SIZES,
        "pipeline": SIZES,
        "zero": st.integers(0, 3),
        "sequence": st.booleans(),
        "offload": st.booleans(),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    layout=LAYOUTS,
    batch=st.tuples(st.integers(1, 48), st.integers(1, 8)),
    precision=st.sampled_from(PRECISIONS),
    world=st.integers(1, 24),
    model=st.sampled_from([*MODELS, DECODER.model_copy(update={"tied_embeddings": True, "mlp": 90, "sequence_length": 30})]),
)
def test_the_nearest_legal_layout_is_legal_for_as_many_workers(
    layout: dict[str, Any], batch: tuple[int, int], precision: str, world: int, model: ModelConfig
) -> None:
    valid = config({**layout, "data": None}, batch, precision=precision)
    asked = valid.model_copy(update={"layout": valid.layout.model_copy(update={"data": layout["data"]})})
    nearest, overrides = nearest_legal(asked, model, world)
    assert breaches(nearest, model, world) == []
    assert nearest.layout.data_size(world) * nearest.layout.replica == world
    assert (overrides == []) == (breaches(asked, model, world) == [])
    # Pasted behind the configuration that was refused, the overrides make the legal one.
    pasted = override({"train": asked.model_dump(mode="json", by_alias=True)}, overrides)["train"]
    assert validate(TrainConfig, pasted, "pasted") == nearest


def test_what_is_legal_and_unwise_is_said() -> None:
    (said,) = hints(config({"pipeline": 4, "zero": 0}, (8, 2)), DECODER, 4)
    assert "the pipeline idles for 43% of a step at 4 micro-batches; 16" in said and "would make it 16%" in said
    assert hints(config({"pipeline": 4, "zero": 0}, (32, 2)), DECODER, 4) == []
    (said,) = hints(config({"zero": 3}), DECODER, 1)
    assert "train.layout.zero = 3 shards over one data-parallel rank, which saves nothing; zero = 0 is simpler" in said
    assert hints(config({"zero": 1}, precision="bf16"), DECODER, 1) == [], "there it adds gradients up in float32"
    (said,) = hints(config({"zero": 0}, precision="bf16"), DECODER, 2)
    assert "added up in bf16" in said
    (said,) = hints(config({"tensor": 4}), DECODER, 8, per_node=2)
    assert "train.layout.tensor = 4 with 2 workers on a node" in said


def test_the_bubble_is_the_published_one() -> None:
    assert bubble(1, 8) == 0
    assert bubble(4, 8) == pytest.approx(3 / 11)  # Narayanan et al. 2021: (p - 1) of (m + p - 1) slots


def legal(model: ModelConfig, layout: dict[str, Any], precision: str) -> str:
    """ZeRO stages at which a layout can be run."""
    world = 2 * layout.get("tensor", 1) * layout.get("pipeline", 1)
    stages = [zero for zero in range(4) if not breaches(config({**layout, "zero": zero}, precision=precision), model, world)]
    return ", ".join(map(str, stages)) or "none"


def table() -> list[str]:
    """The table of legal layouts as the README has it."""
    rows = {
        "data x tensor, `sequence` or not": {"tensor": 2, "sequence": True},
        "the same with `offload`": {"tensor": 2, "offload": True},
        "data x tensor x pipeline, `sequence` or not": {"pipeline": 2, "tensor": 2, "sequence": True},
        "the same with tied embeddings": {"pipeline": 2, "tensor": 2, "sequence": True},
        "a pipeline with `offload`": {"pipeline": 2, "offload": True},
    }
    lines = ["| layout | ZeRO stages in fp32 | in bf16 | in fp16 |", "| --- | --- | --- | --- |"]
    for name, layout in rows.items():
        models = [model.model_copy(update={"tied_embeddings": "tied" in name}) for model in MODELS]
        cells = []
        for precision in PRECISIONS:
            decoder, encoder_decoder = (legal(model, layout, precision) for model in models)
            assert decoder == encoder_decoder, "both architectures have the same layers"
            cells.append(decoder)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def test_plain_data_parallel_ranks_may_do_what_sharing_ranks_may() -> None:
    for precision in PRECISIONS:
        rows = {legal(DECODER, layout, precision) for layout in ({}, {"tensor": 2}, {"tensor": 2, "sequence": True})}
        assert len(rows) == 1
        assert legal(DECODER, {"pipeline": 2}, precision) == legal(DECODER, {"pipeline": 2, "tensor": 2}, precision)


def test_the_readme_has_the_table_of_legal_layouts() -> None:
    readme = README.read_text()
    assert not [line for line in table() if line not in readme], "\n".join(table())
