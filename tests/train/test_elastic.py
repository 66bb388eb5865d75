from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import ConfigError
from headrace.model import DecoderConfig
from headrace.train.config import TrainConfig
from headrace.train.elastic import settle, usable_worlds
from headrace.train.room import Room

MODEL = DecoderConfig(layers=4, hidden=64, heads=8, kv_heads=4, mlp=96).sized(97, 64)
ROOM = Room(10**9, 8, True)


def config(layout: Any = None, workers: Any = (1, 16), batch: tuple[int, int] = (24, 2), **values: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"batch": {"global": batch[0], "micro": batch[1]}, "layout": layout or {}, "num_workers": workers, **values}
    )


@pytest.mark.parametrize(
    ("layout", "world", "data", "used", "accumulation"),
    [
        ({}, 1, 1, 1, 12),
        ({}, 5, 4, 4, 3),
        ({}, 11, 6, 6, 2),
        ({}, 16, 12, 12, 1),
        ({"tensor": 2}, 7, 3, 6, 4),
        ({"tensor": 4, "zero": 3}, 15, 3, 12, 4),
        ({"pipeline": 2}, 16, 6, 12, 2),  # with data 8 the batch does not divide, with 12 a stage would have one micro-batch
        ({"tensor": 2, "pipeline": 2}, 9, 2, 8, 6),
    ],
)
def test_as_many_train_as_can_keep_the_batch(layout: dict[str, int], world: int, data: int, used: int, accumulation: int) -> None:
    found = settle(config(layout), MODEL, world, ROOM)
    assert (found.layout.data, found.used, found.idle, found.accumulation) == (data, used, world - used, accumulation)
    assert found.layout.tensor == layout.get("tensor", 1) and found.layout.zero == layout.get("zero", 1)
    assert found.explanation[-1].startswith(f"{used} of {world} worker") and f"train, {world - used} wait" in found.explanation[-1]


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 4), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))
def test_the_global_batch_stays(world: int, passes: int, micro: int, tensor: int, pipeline: int) -> None:
    elastic = config({"tensor": tensor, "pipeline": pipeline}, (1, 40), (passes * micro, micro))
    try:
        found = settle(elastic, MODEL, world, ROOM)
    except ConfigError:
        assert world < tensor * pipeline or passes < pipeline
        return
    assert found.layout.data is not None
    assert found.accumulation * found.layout.data * micro == passes * micro
    assert found.used == found.layout.data * tensor * pipeline and found.used + found.idle == world


def test_what_cannot_keep_the_batch_is_refused_with_the_worlds_that_can() -> None:
    with pytest.raises(ConfigError) as refusal:
        settle(config({"tensor": 4}, (2, 16)), MODEL, 3, ROOM)
    assert str(refusal.value) == (
        "train.num_workers = [2, 16]: 3 workers cannot keep train.batch.global = 24 in this layout; these numbers can: 4, 8, 12, 16."
    )
    assert usable_worlds(config({"tensor": 4}, (2, 16)), MODEL, ROOM) == [4, 8, 12, 16]
    with pytest.raises(ConfigError, match=r"nor can any other number in that range\.\ntrain\.layout\.zero = 2 with pipeline = 2"):
        settle(config({"pipeline": 2, "zero": 2}, (2, 16)), MODEL, 8, ROOM)


def test_no_more_than_asked_for_train() -> None:
    found = settle(config(workers=(1, 4)), MODEL, 16, ROOM)
    assert (found.used, found.idle) == (4, 12)


def test_a_fixed_number_of_workers_all_train_or_none() -> None:
    found = settle(config({"tensor": 2}, 4), MODEL, 4, ROOM)
    assert (found.layout.data, found.used, found.idle, found.explanation) == (2, 4, 0, ())
    with pytest.raises(ConfigError, match=r"train\.batch\.global = 24 is not a multiple"):
        settle(config(workers=5), MODEL, 5, ROOM)


def test_a_layout_is_chosen_for_the_workers_that_are_of_use() -> None:
    found = settle(config("auto"), MODEL, 5, ROOM)
    assert (found.layout.data, found.layout.tensor, found.used, found.idle) == (4, 1, 4, 1)
    assert "is the least sharded layout that fits" in found.explanation[1]
    with pytest.raises(ConfigError, match="nothing fits 4 workers"):
        settle(config("auto"), MODEL, 5, Room(10**5, 8, True))
