from __future__ import annotations

from typing import Any

import pytest

from headrace.config import ConfigError
from headrace.model import DecoderConfig
from headrace.train.auto import Choice, choose, legal_layouts
from headrace.train.config import TrainConfig
from headrace.train.room import Room

GB = 10**9
MODEL = DecoderConfig(preset="1b").sized(128_256, 4_096)


def config(**values: Any) -> TrainConfig:
    return TrainConfig.model_validate({"batch": {"global": 512, "micro": 4}, "layout": "auto", "precision": "bf16", **values})


def chosen(world: int, memory: float, **values: Any) -> Choice:
    return choose(config(**values), MODEL, world, Room(int(memory * GB), 8, True))


def shape(choice: Choice) -> tuple[int | None, int, int, int]:
    layout = choice.layout
    return layout.data, layout.tensor, layout.pipeline, layout.zero


@pytest.mark.parametrize(
    ("world", "memory", "expected"),
    [
        (8, 141, (8, 1, 1, 1)),
        (8, 52, (8, 1, 1, 2)),  # gradients a rank: 1.1 GB rather than 9
        (4, 57, (4, 1, 1, 2)),
        (8, 46, (4, 2, 1, 1)),  # the activations are what is too much: only shared matrices share them
        (1, 141, (1, 1, 1, 1)),
    ],
)
def test_the_least_sharded_layout_that_fits_is_taken(world: int, memory: float, expected: tuple[int, ...]) -> None:
    choice = chosen(world, memory)
    assert shape(choice) == expected
    assert choice.need.device <= 0.9 * memory * GB


def test_the_choice_says_what_the_others_would_have_taken() -> None:
    setting, taken, *others = chosen(8, 46).explanation
    assert "1,498,482,688 parameters in bf16, 4 x 4,096 tokens a micro-batch, 8 workers of 46.0 GB each, 8 on a node" in setting
    assert taken.startswith("data 4 x tensor 2, ZeRO 1, sequence parallel takes ") and "is the least sharded layout that fits" in taken
    assert [other.split(" would take ")[0] for other in others] == [
        "data 8, ZeRO 1",
        "data 8, ZeRO 2",
        "data 8, ZeRO 3",
        "data 4 x tensor 2, ZeRO 2, sequence parallel",
    ]
    assert all("too much" in other for other in others[:3]) and "too much" not in others[3]


def test_matrices_are_shared_within_a_node_and_a_pipeline_comes_last() -> None:
    layouts = legal_layouts(config(), MODEL, 16, per_node=4)
    assert {layout.tensor for layout in layouts} == {1, 2, 4}
    assert [layout.pipeline for layout in layouts] == sorted(layout.pipeline for layout in layouts)
    assert {layout.zero for layout in layouts if layout.pipeline > 1} == {1}
    assert all(layout.sequence == (layout.tensor > 1) for layout in layouts)
    assert {layout.pipeline for layout in legal_layouts(config(batch={"global": 32, "micro": 4}), MODEL, 16, 4)} == {1, 2, 4, 8}


def test_one_rank_in_float32_shards_nothing() -> None:
    assert [layout.zero for layout in legal_layouts(config(precision="fp32"), MODEL, 1, 1)] == [0]
    assert [layout.zero for layout in legal_layouts(config(), MODEL, 1, 1)] == [1]


def test_if_nothing_fits_it_says_how_much_is_short_and_what_would_help() -> None:
    with pytest.raises(ConfigError) as refusal:
        chosen(2, 26)
    told = str(refusal.value)
    assert "train.layout = auto: nothing fits 2 workers of 26.0 GB, 10% of it left free: the smallest, tensor 2, ZeRO 1" in told
    assert "12.4 GB too much; train.activation_checkpointing=block would make it 20.4 GB; train.batch.micro=1 would make it" in told
    assert "train.num_workers=4 would make it" in told and "train.num_workers=8" not in told
    with pytest.raises(ConfigError, match="a smaller model is needed, or workers with more memory"):
        chosen(2, 0.5)


def test_a_batch_that_no_layout_of_these_workers_can_share() -> None:
    with pytest.raises(ConfigError, match=r"no layout of 3 workers .* in micro-batches of 4; train\.num_workers=2 does"):
        chosen(3, 141, batch={"global": 8, "micro": 4})


def test_without_a_gpu_the_host_s_memory_is_all_there_is() -> None:
    small = DecoderConfig().sized(4_096, 256)
    choice = choose(config(precision="fp32"), small, 2, Room(8 * GB, 2, False))
    assert shape(choice) == (2, 1, 1, 1) and choice.need.host == 0
