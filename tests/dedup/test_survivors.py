from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from headrace import artifact
from headrace.dedup.exact import EXACT, EXACT_REMOVED
from headrace.dedup.survivors import FIRST_OF_INDEX, GROUPS, LINKS, UNSCORED, dominating, link_groups, thinned


def links(*rows):
    return pa.Table.from_pylist([dict(zip(LINKS.names, row)) for row in rows], schema=LINKS)


def test_the_best_link_of_a_document_has_the_highest_score_then_the_best_priority_then_the_lowest_number():
    given = links((9, 5, 1, 5, 0.8), (9, 5, 2, 5, 0.9), (9, 5, 4, 0, 0.9), (9, 5, 3, 0, 0.9), (7, 5, 3, 0, 0.75))
    best = dominating([given])
    assert best.equals(links((7, 5, 3, 0, 0.75), (9, 5, 3, 0, 0.9)))
    for seed in range(5):  # in whatever order and parts they come
        order = np.random.default_rng(seed).permutation(len(given))
        parts = [given.take(order[:2]), given.take(order[2:])]
        assert dominating([dominating([part]) for part in parts]).equals(best)
    assert len(dominating([links()])) == 0


def test_thinned_links_are_fewer_than_documents_and_the_same_in_whatever_parts():
    rng = np.random.default_rng(1)
    everyone = links(*((doc, 0, better, 0, float(rng.integers(75, 100)) / 100) for doc in range(50) for better in range(doc)))
    thin = thinned([everyone])
    assert len(thin) == 49
    assert set(thin["doc"].to_pylist()) | set(thin["better"].to_pylist()) == set(range(50))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(everyone))
        assert thinned([thinned([everyone.take(order[:600])]), everyone.take(order[600:])]).equals(thin)
    for doc in range(50):  # the highest score of every document is among those that are left
        best, kept = (
            max(score for a, b, score in zip(*(table[name].to_pylist() for name in ("doc", "better", "score"))) if doc in (a, b))
            for table in (everyone, thin)
        )
        assert kept == best


def grouped(folder, near, copies, known=(), sources=None):
    """Groups of the links `near`, the `copies` (doc, kept, kept_preference), and the groups `known` of an index."""
    exact = [{"rank": doc >> 32, "doc": doc, "kept": kept, "kept_preference": preference} for doc, kept, preference in copies]
    tables = {
        "links": links(*near),
        "copies": pa.Table.from_pylist(exact, schema=EXACT_REMOVED),
        "known": pa.Table.from_pylist([dict(zip(GROUPS.names, row)) for row in known], schema=GROUPS),
    }
    for name, table in tables.items():
        artifact.write_table(table, folder / f"{name}.parquet")
    docs = {doc for row in near for doc in (row[0], row[2])} | {doc for row in copies for doc in row[:2]}
    docs |= {doc for row in known for doc in (row[0], row[3])}
    hashes = {}
    for rank in {doc >> 32 for doc in docs}:
        rows = [{"high": 1, "low": 10 * (doc & 0xFFFF), "preference": 0, "doc": doc} for doc in sorted(docs) if doc >> 32 == rank]
        hashes[str(rank)] = str(folder / f"exact-{rank}.parquet")
        artifact.write_table(pa.Table.from_pylist(rows, schema=EXACT), folder / f"exact-{rank}.parquet")
    unit = {"id": "all", "links": [str(folder / "links.parquet")], "copies": [str(folder / "copies.parquet")]}
    unit |= {"index_groups": [str(folder / "known.parquet")], "hashes": hashes, "sources": sources or {"0": "s"}}
    link_groups(unit, folder)
    found = artifact.read_table(folder / "work" / "groups" / "all.parquet")
    assert found.schema == GROUPS
    return {row["doc"]: tuple(row[name] for name in GROUPS.names[1:]) for row in found.to_pylist()}


def test_groups_are_linked_through_exact_and_near_duplicates(tmp_path):
    # 8 repeats 5 and 2 is a copy of 5, which its source's priority puts first: one group, named after 2 and carrying the hash of 2.
    found = grouped(tmp_path, [(8, 9, 5, 0, 0.8), (4, 1, 3, 1, 0.9)], [(2, 5, 0)])
    assert found == {
        2: (2, 20, 5, 0, 1.0),
        3: (3, 30, 3, 1, 0.9),
        4: (3, 30, 3, 1, 0.9),
        5: (2, 20, 5, 0, 0.8),
        8: (2, 20, 5, 0, 0.8),
    }


def test_a_group_s_survivor_is_its_first_by_preference_and_a_document_s_score_its_highest(tmp_path):
    # A chain 1 - 2 - 3 - 4 with 4 preferred to all: it is the better one of one link, and stays.
    found = grouped(tmp_path, [(2, 7, 1, 7, 0.8), (3, 7, 2, 7, 0.85), (3, 7, 4, 6, 0.9)], [])
    assert {doc: (row[2], row[4]) for doc, row in found.items()} == {1: (4, 0.8), 2: (4, 0.85), 3: (4, 0.9), 4: (4, 0.9)}
    unscored = grouped(tmp_path, [(2, 7, 1, 7, UNSCORED)], [])
    assert unscored == {1: (1, 10, 1, 7, UNSCORED), 2: (1, 10, 1, 7, UNSCORED)}


def test_documents_of_an_index_come_first_and_bring_their_groups(tmp_path):
    a, b, c = FIRST_OF_INDEX + 3, FIRST_OF_INDEX + 5, (1 << 32) + FIRST_OF_INDEX
    # In the index b belongs to a; 7 repeats b, and 9 repeats 7 as well as c, whom nothing linked to a before.
    found = grouped(tmp_path, [(7, 4, b, -9, 0.8), (9, 4, 7, 4, 0.9), (9, 4, c, -3, 0.75)], [], [(b, a, 777, a, -9, 0.9)])
    assert {doc: row[:4] for doc, row in found.items()} == dict.fromkeys((7, 9, a, b, c), (a, 30, a, -9))
    assert found[9][4] == 0.9
    # A group's content stays what its index says, so that its parts fall to train or validation as they did.
    found = grouped(tmp_path, [(7, 4, b, -9, 0.8)], [], [(a, a, 777, a, -9, 0.9), (b, a, 777, a, -9, 0.9)])
    assert {row[1] for row in found.values()} == {777}


@pytest.mark.parametrize("indexed", [False, True])
def test_the_largest_group_counts_the_documents_of_this_run(tmp_path, indexed):
    far = 1 << 32
    near = [(2, 5, FIRST_OF_INDEX if indexed else 1, -5 if indexed else 5, 0.8), (far, 5, 2, 5, 0.8), (far + 7, 5, far + 6, 5, 0.8)]
    grouped(tmp_path, near, [(far + 1, 2, 5)], sources={"0": "web", "1": "books"})
    largest = json.loads((tmp_path / "work" / "groups" / "largest.json").read_text())
    assert largest == {"web": 4 - indexed, "books": 4 - indexed}
