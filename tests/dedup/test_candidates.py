from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace.dedup.candidates import BANDS, BUCKET_LEADERS, LARGE_BUCKET, PAIRS, bucket_pairs, distinct


def pairs(rows):
    columns = list(zip(*sorted(rows))) if rows else [[], [], []]
    table = bucket_pairs(pa.table([pa.array(list(c), f.type) for c, f in zip(columns, BANDS)], schema=BANDS))
    assert table.schema == PAIRS
    return sorted((row["doc"], row["better"], row["better_preference"]) for row in table.to_pylist())


def test_a_bucket_pairs_each_document_with_those_before_it():
    # Document 1 is the last: its source has the lowest priority. The rows that pair nothing name who is a better one.
    assert pairs([(9, 0, 3), (9, 1, 1), (9, 0, 2)]) == [(1, 2, 0), (1, 3, 0), (2, 2, 0), (3, 2, 0), (3, 3, 0)]


@pytest.mark.parametrize("rows", [[], [(1, 0, 1)], [(1, 0, 1), (2, 0, 2), (3, 0, 1)]])
def test_a_document_alone_in_its_bucket_is_no_candidate(rows):
    assert pairs(rows) == []


def test_documents_of_an_index_are_the_better_ones_of_pairs_and_never_the_worse():
    old = 1 << 62
    assert pairs([(9, -3, old), (9, -2, old + 1), (9, 0, 2), (9, 5, 1)]) == [
        (1, 2, 0), (1, old, -3), (1, old + 1, -2), (2, 2, 0), (2, old, -3), (2, old + 1, -2)
    ]  # fmt: skip
    assert pairs([(9, -3, old), (9, -2, old + 1)]) == []


def test_a_pair_of_several_buckets_is_one_pair():
    assert pairs([(band, 0, doc) for band in range(14) for doc in (4, 7)]) == [(4, 4, 0), (7, 4, 0)]


def test_rank_is_that_of_the_document_that_may_go():
    rows = pa.table([[1, 1], [0, 0], [5, (7 << 32) + 1]], schema=BANDS)
    found = {row["doc"]: row["rank"] for row in bucket_pairs(rows).to_pylist()}
    assert found == {5: 0, (7 << 32) + 1: 7}


@pytest.mark.parametrize(
    "size, width",
    [(size, BUCKET_LEADERS) for size in (BUCKET_LEADERS, BUCKET_LEADERS + 1, BUCKET_LEADERS + 2, LARGE_BUCKET)]
    + [(LARGE_BUCKET + 1, BUCKET_LEADERS - 1), (2 * LARGE_BUCKET, BUCKET_LEADERS // 2), (30 * LARGE_BUCKET, 1), (100_000, 1)],
)
def test_a_large_bucket_costs_a_star_and_not_a_clique(size, width):
    rows = pa.table([np.full(size, 3, np.uint64), np.zeros(size, np.int32), np.arange(size)], schema=BANDS)
    found = bucket_pairs(rows)
    doc, better = found["doc"].to_numpy(), found["better"].to_numpy()
    counts = np.bincount(doc[doc != better], minlength=size)
    assert np.array_equal(counts, np.minimum(np.arange(size), width))
    assert better.max() == min(size - 2, width - 1)
    assert sorted(doc[doc == better].tolist()) == list(range(min(size - 1, width)))


def test_distinct_keeps_each_row_once():
    table = pa.table([[0, 0, 1, 0], [1, 1, 1, 2], [0, 0, 0, 0], [1, 1, 1, 1]], schema=PAIRS)
    assert distinct(table).sort_by([("doc", "ascending"), ("rank", "ascending")]).to_pydict() == {
        "rank": [0, 1, 0], "doc": [1, 1, 2], "better_preference": [0, 0, 0], "better": [1, 1, 1]
    }  # fmt: skip
    assert distinct(PAIRS.empty_table()).equals(PAIRS.empty_table())
