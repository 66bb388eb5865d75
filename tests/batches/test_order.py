import itertools

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.batches.order import BLOCK, PERIOD, Order
from headrace.config import ConfigError

COUNTS = {"a": 1000, "b": 37, "c": 5000}


def order(seed: int = 7, **weights: float) -> Order:
    return Order(seed, COUNTS, {"a": 1.0, "b": 1.0, "c": 1.0, **weights})


def draws(of: Order, name: str, samples: int) -> np.ndarray:
    source, index = of.samples(0, samples)
    return index[source == of.sources.index(name)]


@pytest.mark.parametrize("name", COUNTS)
def test_an_epoch_reads_every_sequence_of_a_source_once(name: str) -> None:
    count, found = COUNTS[name], draws(order(), name, 14_000)
    assert len(found) >= 2 * count
    for epoch in range(len(found) // count):
        assert sorted(found[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))
    assert found[:count].tolist() != found[count : 2 * count].tolist(), "each epoch has an order of its own"


@settings(deadline=None, max_examples=30)
@given(
    counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=6),
    weights=st.lists(st.floats(0, 100), min_size=6, max_size=6),
    block=st.integers(0, 10**6),
)
def test_each_block_holds_each_share_to_within_one_sample(counts: list[int], weights: list[float], block: int) -> None:
    names = [f"s{number}" for number in range(len(counts))]
    share = np.array(counts) * np.array(weights[: len(counts)])
    if share.sum() == 0:
        return
    source, index = Order(1, dict(zip(names, counts)), dict(zip(names, weights))).samples(block * BLOCK, (block + 1) * BLOCK)
    held = np.bincount(source, minlength=len(names))
    assert held.sum() == BLOCK
    # One from the rounding of the block, and what the rounding to whole seats of a period moves.
    assert np.abs(held - share / share.sum() * BLOCK).max() <= 1 + len(names) / PERIOD
    assert (index >= 0).all() and (index < np.array(counts)[source]).all()


def test_a_period_holds_the_seats_exactly_and_the_rarest_source_evenly() -> None:
    rare = Order(0, {"many": 10**9, "one": 1}, {"many": 1.0, "one": 10.0})
    assert rare._quotas.sum(0).tolist() == [BLOCK * PERIOD - 1, 1]
    quarter = Order(0, {"many": 3 * 10**6, "few": 1500}, {"many": 1.0, "few": 1.0})
    per_block = quarter._quotas[:, quarter.sources.index("few")]
    assert int(per_block.sum()) == round(BLOCK * PERIOD * 1500 / 3_001_500)
    per_64_blocks = per_block.reshape(-1, 64).sum(1)
    assert per_64_blocks.max() - per_64_blocks.min() <= 2


@settings(deadline=None, max_examples=50)
@given(start=st.integers(0, 10**12), length=st.integers(0, 3000))
def test_a_sample_does_not_depend_on_the_range_that_it_is_read_in(start: int, length: int) -> None:
    source, index = order().samples(start, start + length)
    assert len(source) == len(index) == length
    for place in {0, length // 2, length - 1} & set(range(length)):
        name, number = order().sample(start + place)
        assert (name, number) == (order().sources[source[place]], index[place])


def test_a_weight_multiplies_how_often_a_source_is_read() -> None:
    epochs = order(c=2.0).epochs(BLOCK * PERIOD)
    assert epochs["c"] == pytest.approx(2 * epochs["a"], rel=0.01)
    assert epochs["b"] == pytest.approx(epochs["a"], rel=0.01)
    assert order(c=0.0).epochs(BLOCK)["c"] == 0.0
    source, _ = order().samples(0, 3333)
    read = np.bincount(source, minlength=3)
    assert list(order().epochs(3333).values()) == pytest.approx([read[i] / COUNTS[name] for i, name in enumerate(order().sources)])


def test_the_order_is_pinned() -> None:
    source, index = order(c=2.0).samples(0, 5000)
    assert xxhash.xxh64_hexdigest(source.astype("<i8").tobytes() + index.astype("<i8").tobytes()) == "4c16117bb99d3137"


def test_seeds_give_unrelated_orders() -> None:
    one, other = (order(seed).samples(0, 4096) for seed in (1, 2))
    assert np.mean((one[0] == other[0]) & (one[1] == other[1])) < 0.01
    both = [set(itertools.islice(zip(*(column.tolist() for column in made)), 300)) for made in (one, other)]
    assert len(both[0] & both[1]) < 40


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1.0, "b": 1.0}, "mixture.c: weights and sources differ"),
        ({"a": 1.0, "b": -1.0, "c": 1.0}, r"mixture.b = -1.0: a weight is a number of at least 0"),
        ({"a": 0.0, "b": 0.0, "c": 0.0}, "no training sequence in any source of positive weight"),
    ],
)
def test_impossible_mixtures_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Order(0, COUNTS, weights)
