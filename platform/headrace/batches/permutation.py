"""Permutations of any size in O(1) memory, and the hash that they are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xxhash

ROUNDS = 6  # Luby and Rackoff 1988 need 4 for a permutation that no cheap test tells from a random one; small domains gain from more

Indices = npt.NDArray[np.int64]


def key(*parts: int | str) -> int:
    """64 bits that stand for the parts."""
    return xxhash.xxh64_intdigest("/".join(str(part) for part in parts).encode())


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A bijection of 64-bit integers without visible structure (the finaliser of SplitMix64: Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def shuffled(count: int, seed: int) -> Indices:
    """A permutation of 0..count-1 as an array, for a count that fits in memory; equal on every platform and NumPy release."""
    return np.argsort(mix(np.arange(count, dtype=np.uint64) + np.uint64(seed)), kind="stable")


def permuted(positions: Indices, count: int, seed: int) -> Indices:
    """The entries at `positions` of the permutation of 0..count-1 that `seed` names: int64, shape of `positions`.

    A Feistel network over the smallest even number of bits that holds `count`, walked until it lands below `count`
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section 4): at most four passes on average.

    Raises:
        ValueError: a position outside 0..count-1.
    """
    if positions.size and (int(positions.min()) < 0 or int(positions.max()) >= count):
        raise ValueError(f"positions {int(positions.min())}..{int(positions.max())} are not all below the count {count}.")
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    result = _feistel(positions.astype(np.uint64).ravel(), half, seed)
    while (outside := np.flatnonzero(result >= count)).size:
        result[outside] = _feistel(result[outside], half, seed)
    return result.astype(np.int64).reshape(positions.shape)


def _feistel(values: npt.NDArray[np.uint64], half: int, seed: int) -> npt.NDArray[np.uint64]:
    bits, low = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & low
    for turn in range(ROUNDS):
        left, right = right, left ^ (mix(right + np.uint64(key(seed, turn))) & low)
    return (left << bits) | right
