from __future__ import annotations

import numpy as np
import pyarrow as pa

from headrace import artifact
from headrace.dedup.exact import EXACT_REMOVED
from headrace.dedup.survivors import EDGES, LINKS, dominating, link_groups, thinned


def edges(*rows):
    return pa.Table.from_pylist([dict(zip(EDGES.names, row)) for row in rows], schema=EDGES)


def test_the_best_edge_of_a_document_has_the_highest_score_then_the_best_priority_then_the_lowest_number():
    given = edges((9, 1, 5, 0.8), (9, 2, 5, 0.9), (9, 4, 0, 0.9), (9, 3, 0, 0.9), (7, 3, 0, 0.75))
    best = dominating(given)
    assert best.equals(edges((7, 3, 0, 0.75), (9, 3, 0, 0.9)))
    for seed in range(5):  # in whatever order and parts they come
        order = np.random.default_rng(seed).permutation(len(given))
        parts = [given.take(order[:2]), given.take(order[2:])]
        assert dominating(pa.concat_tables([dominating(part) for part in parts])).equals(best)
    assert len(dominating(edges())) == 0


def test_thinned_links_are_fewer_than_documents():
    rows = [{"doc": doc, "better": better, "content": doc, "better_content": better} for doc in range(50) for better in range(doc)]
    thin = thinned(pa.Table.from_pylist(rows, schema=LINKS))
    assert len(thin) == 49
    assert set(thin["doc"].to_pylist()) | set(thin["better"].to_pylist()) == set(range(50))


def test_groups_are_linked_through_exact_and_near_duplicates(tmp_path):
    # 8 repeats 5 and 5 is a copy of 2: one group, named after 2 and carrying the hash of 2.
    links = [{"doc": 8, "better": 5, "content": 80, "better_content": 20}, {"doc": 4, "better": 3, "content": 40, "better_content": 30}]
    copies = [{"rank": 0, "doc": 5, "kept": 2, "content": 20}]
    artifact.write_table(pa.Table.from_pylist(links, schema=LINKS), tmp_path / "links.parquet")
    artifact.write_table(pa.Table.from_pylist(copies, schema=EXACT_REMOVED), tmp_path / "copies.parquet")
    link_groups({"id": "all", "links": [str(tmp_path / "links.parquet")], "copies": [str(tmp_path / "copies.parquet")]}, tmp_path)
    found = artifact.read_table(tmp_path / "work" / "groups" / "all.parquet").to_pydict()
    assert found == {"doc": [2, 3, 4, 5, 8], "group": [2, 3, 3, 2, 2], "content": [20, 30, 30, 20, 20]}
