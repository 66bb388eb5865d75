from pathlib import Path

import numpy as np
import pytest
import xxhash

from headrace.batches import Loader, Order, Replay, with_replay
from headrace.batches.order import BLOCK, PERIOD
from headrace.config import ConfigError
from headrace.tokens.store import TokenStore, write_store

WEIGHTS = {"a": 1.0, "z": 2.0}  # "replay/..." stands between them in the order of names
OLD = {"a": 1.0, "b": 3.0, "unread": 0.0}


def build(folder: Path, documents: dict[str, int], length: int = 8, vocab_size: int = 4000) -> TokenStore:
    """One document of rising ids a source."""
    streams = {name: {"train": [list(range(1, size + 1))], "validation": [[5] * 99]} for name, size in documents.items()}
    return write_store(folder, streams, vocab_size=vocab_size, eos=0, sequence_length=length)


@pytest.fixture
def new(tmp_path: Path) -> TokenStore:
    return build(tmp_path / "new", {"a": 3000, "z": 1000})


@pytest.fixture
def old(tmp_path: Path) -> TokenStore:
    return build(tmp_path / "old", {"a": 800, "b": 400, "unread": 900}, length=16)


def mixed(new: TokenStore, old: TokenStore, share: float, seed: int = 3) -> tuple[Loader, Order]:
    union, weights = with_replay(new, WEIGHTS, Replay(old, OLD, share))
    order = Order(seed, {name: union.num_sequences(name, "train") for name in union.sources}, weights)
    return Loader(union, order, 12, 2, 0, 1), order


def held(order: Order, start: int, stop: int) -> dict[str, int]:
    source, _ = order.samples(start, stop)
    return dict(zip(order.sources, np.bincount(source, minlength=len(order.sources)).tolist()))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.9])
def test_each_block_holds_the_share_to_within_one_sample_and_a_period_exactly(new: TokenStore, old: TokenStore, share: float) -> None:
    _, order = mixed(new, old, share)
    for block in (0, 1, 77, PERIOD + 5):
        counts = held(order, block * BLOCK, (block + 1) * BLOCK)
        replayed = sum(count for name, count in counts.items() if name.startswith("replay/"))
        assert abs(replayed - share * BLOCK) <= 1 + len(counts) / PERIOD
        assert counts["replay/unread"] == 0
    seats = dict(zip(order.sources, order._seats.tolist()))
    assert abs(seats["replay/a"] + seats["replay/b"] - share * BLOCK * PERIOD) <= 2


def test_either_side_keeps_its_own_mixture(new: TokenStore, old: TokenStore) -> None:
    _, order = mixed(new, old, 0.25)
    epochs = order.epochs(BLOCK * PERIOD)
    assert epochs["z"] == pytest.approx(2 * epochs["a"], rel=0.01)
    assert epochs["replay/b"] == pytest.approx(3 * epochs["replay/a"], rel=0.01)
    alone = Order(3, {name: new.num_sequences(name, "train") for name in new.sources}, WEIGHTS).epochs(BLOCK * PERIOD)
    assert epochs["a"] == pytest.approx(0.75 * alone["a"], rel=0.01)


def test_the_old_stream_is_cut_at_the_new_length(new: TokenStore, old: TokenStore) -> None:
    union, _ = with_replay(new, WEIGHTS, Replay(old, OLD, 0.5))
    assert union.num_sequences("replay/a", "train") == 100 and old.num_sequences("a", "train") == 50
    np.testing.assert_array_equal(union.sequence("replay/a", "train", 3), old.tokens("a", "train", 24, 33))
    np.testing.assert_array_equal(union.sequence("a", "train", 3), new.sequence("a", "train", 3))
    last = union.sequence("replay/b", "train", union.num_sequences("replay/b", "train") - 1)
    assert last.shape == (9,) and last.dtype == np.int64


def test_batches_hold_what_the_order_says_for_any_number_of_ranks(new: TokenStore, old: TokenStore) -> None:
    whole, order = mixed(new, old, 0.25)
    for batch in (0, 40):
        expected = []
        for number in range(12 * batch, 12 * (batch + 1)):
            name, index = order.sample(number)
            store = old if name.startswith("replay/") else new
            expected.append(store.tokens(name.removeprefix("replay/"), "train", 8 * index, 8 * index + 9))
        np.testing.assert_array_equal(whole.read(batch), expected)
        ranks = [Loader(whole.store, order, 12, 2, rank, 3).read(batch) for rank in range(3)]
        np.testing.assert_array_equal(np.stack(ranks, axis=1).reshape(12, 9), expected)


def test_an_old_source_is_read_in_epochs_of_an_order_of_its_own(new: TokenStore, old: TokenStore) -> None:
    _, order = mixed(new, old, 0.5)
    source, index = order.samples(0, 4 * BLOCK)
    read = index[source == order.sources.index("replay/b")]
    assert len(read) >= 100
    for epoch in range(len(read) // 50):
        assert sorted(read[epoch * 50 : (epoch + 1) * 50].tolist()) == list(range(50))
    assert read[:50].tolist() != read[50:100].tolist()


def test_the_batches_with_replay_are_pinned(new: TokenStore, old: TokenStore) -> None:
    digest = xxhash.xxh64()
    loader, _ = mixed(new, old, 0.25)
    for batch in range(10):
        digest.update(loader.read(batch).astype("<i8").tobytes())
    assert digest.hexdigest() == "733bada558fe232b"


def test_other_tokens_are_refused(tmp_path: Path, new: TokenStore) -> None:
    other = build(tmp_path / "other", {"a": 100}, vocab_size=300)
    with pytest.raises(ConfigError, match=r"train\.start\.replay = 0\.1: .*other has 300 token ids .*, .*new has 4000 and 0; make the new"):
        with_replay(new, WEIGHTS, Replay(other, {"a": 1.0}, 0.1))


def test_an_old_store_without_a_sequence_is_refused(tmp_path: Path, new: TokenStore) -> None:
    short = build(tmp_path / "short", {"a": 5, "unread": 900})
    with pytest.raises(ConfigError, match=r"short holds no training sequence of 8 tokens in a source that its run read"):
        with_replay(new, WEIGHTS, Replay(short, OLD, 0.1))
