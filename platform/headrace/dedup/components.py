"""Groups of documents that are linked by duplicates, directly or through others."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Int64s = npt.NDArray[np.int64]


def connected_components(first: Int64s, second: Int64s) -> tuple[Int64s, Int64s]:
    """Components of the graph whose edges join first[i] and second[i].

    Returns:
        The documents that have an edge, sorted: int64 [N]; the smallest document of the component of each: int64 [N].
    """
    docs, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    places = places.astype(np.int64)
    return docs, docs[_smallest_members(places[: len(first)], places[len(first) :], len(docs))]


def spanning_forest(first: Int64s, second: Int64s) -> Int64s:
    """Places of the edges that, taken in order, join what was apart: they link the same documents, and are fewer than those.

    So the edges of many files can be thinned out file by file before `connected_components` sees them.
    """
    docs, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    places = places.astype(np.int64)
    return np.flatnonzero(_joins(places[: len(first)], places[len(first) :], len(docs)))


@njit(nogil=True, cache=True)
def _smallest_members(first: Any, second: Any, count: int) -> Any:
    parent = np.arange(count)
    for edge in range(len(first)):
        _join(parent, first[edge], second[edge])
    for member in range(count):  # ascending: a parent is smaller than its child, so it already points at its root
        parent[member] = parent[parent[member]]
    return parent


@njit(nogil=True, cache=True)
def _joins(first: Any, second: Any, count: int) -> Any:
    parent = np.arange(count)
    joins = np.empty(len(first), np.bool_)
    for edge in range(len(first)):
        joins[edge] = _join(parent, first[edge], second[edge])
    return joins


@njit(nogil=True, cache=True)
def _join(parent: Any, a: int, b: int) -> bool:
    """Union-find with path halving; the smaller root stays root, so that a root is its component's smallest member."""
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    while parent[b] != b:
        parent[b] = parent[parent[b]]
        b = parent[b]
    parent[max(a, b)] = min(a, b)
    return a != b
