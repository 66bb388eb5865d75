from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dedup.components import connected_components, spanning_forest


def components(edges):
    first, second = np.array(edges, np.int64).reshape(-1, 2).T
    docs, labels = connected_components(first.copy(), second.copy())
    return dict(zip(docs.tolist(), labels.tolist()))


@pytest.mark.parametrize(
    "edges, expected",
    [
        ([], {}),
        ([(5, 3)], {3: 3, 5: 3}),
        ([(4, 4)], {4: 4}),
        ([(9, 7), (7, 8), (1, 2)], {1: 1, 2: 1, 7: 7, 8: 7, 9: 7}),
        ([(1, 2), (3, 4), (5, 6), (6, 3), (4, 1)], dict.fromkeys(range(1, 7), 1)),
    ],
)
def test_small_graphs(edges, expected):
    assert components(edges) == expected


@settings(deadline=None)  # the first example waits for the compiler
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_labels_are_the_smallest_document_reached(edges):
    reached = {doc: {doc} for edge in edges for doc in edge}
    for _ in reached:  # as many rounds as documents are enough for any path
        for a, b in edges:
            reached[a] |= reached[b]
            reached[b] |= reached[a]
    assert components(edges) == {doc: min(found) for doc, found in reached.items()}


def test_a_long_chain_in_the_worst_order():
    chain = [(number, number + 1) for number in range(200_000)]
    assert set(components(chain[::-1]).values()) == {0}
    assert set(components(chain[::2] + chain[1::2]).values()) == {0}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).filter(lambda edge: edge[0] != edge[1]), max_size=60), st.integers(0, 60))
def test_a_forest_links_the_same_documents_with_fewer_edges(edges, cut):
    def forest(some):
        first, second = np.array(some, np.int64).reshape(-1, 2).T
        return [some[place] for place in spanning_forest(first.copy(), second.copy())]

    thin = forest(edges)
    assert components(thin) == components(edges)
    assert len(thin) == len(components(edges)) - len(set(components(edges).values()))
    # Thinned part by part, as the files of a corpus are.
    assert components(forest(edges[:cut]) + forest(edges[cut:])) == components(edges)
