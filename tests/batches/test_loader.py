from pathlib import Path

import numpy as np
import pytest
import xxhash

from headrace.batches import Loader, Order
from headrace.tokens.store import TokenStore, write_store


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    rising = {"a": {"train": [list(range(1, 300))]}, "b": {"train": [list(range(500, 600)), list(range(700, 750))]}}
    return write_store(tmp_path, rising, vocab_size=1000, eos=0, sequence_length=8)


def loader(store: TokenStore, rank: int = 0, size: int = 1, micro: int = 2) -> Loader:
    counts = {name: store.num_sequences(name, "train") for name in store.sources}
    return Loader(store, Order(3, counts, dict.fromkeys(counts, 1.0)), 12, micro, rank, size)


def test_a_step_reads_the_samples_of_its_number(store: TokenStore) -> None:
    whole = loader(store)
    for step in (0, 5):
        expected = [store.sequence(*_placed(whole.order.sample(12 * step + k))) for k in range(12)]
        np.testing.assert_array_equal(whole.read(step), expected)
    assert whole.read(0).shape == (12, 9) and whole.read(0).dtype == np.int64


def _placed(sample: tuple[str, int]) -> tuple[str, str, int]:
    return sample[0], "train", sample[1]


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_ranks_together_read_the_same_for_every_size(store: TokenStore, size: int) -> None:
    for step in range(4):
        parts = [loader(store, rank, size).read(step) for rank in range(size)]
        np.testing.assert_array_equal(np.stack(parts, axis=1).reshape(12, 9), loader(store).read(step))


def test_micro_batches_are_the_batch_cut(store: TokenStore) -> None:
    cut = list(loader(store, micro=4).micro_batches(1))
    assert [len(sequences) for sequences, _ in cut] == [4, 4, 4]
    np.testing.assert_array_equal(np.concatenate([sequences for sequences, _ in cut]), loader(store).read(1))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_sequence_comes_with_the_number_of_its_sample(store: TokenStore, size: int) -> None:
    seen = {}
    for rank in range(size):
        mine = loader(store, rank, size)
        for sequences, numbers in mine.micro_batches(7):
            assert numbers.dtype == np.int64 and len(numbers) == len(sequences) == 2
            seen |= dict(zip(numbers.tolist(), sequences.tolist(), strict=True))
    assert sorted(seen) == list(range(84, 96))
    order = loader(store).order
    assert all(store.sequence(*_placed(order.sample(number))).tolist() == sequence for number, sequence in seen.items())


def test_the_batches_of_a_run_are_pinned(store: TokenStore) -> None:
    digest = xxhash.xxh64()
    for step in range(10):
        digest.update(loader(store).read(step).astype("<i8").tobytes())
    assert digest.hexdigest() == "379b4ae155f92273"


def test_a_batch_that_does_not_divide_is_refused(store: TokenStore) -> None:
    with pytest.raises(ValueError, match="global batch 12 is not a multiple of micro batch 2 x data-parallel size 4"):
        loader(store, size=4)
