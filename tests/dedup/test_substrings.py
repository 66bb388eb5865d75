from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dedup.fingerprints import FINGERPRINTS, segments, window_hashes
from headrace.dedup.substrings import (
    NOWHERE,
    REPEATS,
    SHARED,
    WINDOWS,
    Ranges,
    apart,
    joined_windows,
    partners,
    place_of,
    rank_of,
    repeated_windows,
    shared_segments,
    tokens_of,
    verified,
    without,
)

INT64S = st.integers(0, 40)


def ints(*values):
    return np.array(values, np.int64)


def sorted_table(columns, columns_schema):
    """As a keyed reduce hands it over: sorted by all columns."""
    arrays = [np.asarray(column) for column in columns]
    order = np.lexsort(arrays[::-1])
    return pa.table([pa.array(array[order], field.type) for array, field in zip(arrays, columns_schema)], schema=columns_schema)


def ranges_that_go(ids, borders, preferences, window, gram, keep):
    """The level's steps on one file of ids whose documents end at `borders`: starts and ends."""
    starts, ends = np.array([0, *borders[:-1]], np.int64), np.array(borders, np.int64)
    found = segments(ids, starts, ends, window, gram)
    preference = np.repeat(np.array(preferences, np.int32), found.counts)
    shared = shared_segments(sorted_table([found.fingerprint, found.segment, preference, found.start, found.windows], FINGERPRINTS), keep)
    assert shared.schema == SHARED
    compared = shared.filter(shared["compare"].to_numpy() == 1)
    hashes, places = window_hashes(ids, compared["place"].to_numpy(), compared["windows"].to_numpy(), window)
    of_place = np.array(preferences)[np.searchsorted(ends, places, side="right")] if len(places) else []
    repeats = repeated_windows(sorted_table([hashes, of_place, places], WINDOWS), keep)
    assert repeats.schema == REPEATS
    settled = shared.filter(shared["kept"].to_numpy() != NOWHERE)
    place = np.concatenate([settled["place"].to_numpy(), repeats["place"].to_numpy(), found.runs[0]])
    kept = np.concatenate([settled["kept"].to_numpy(), repeats["kept"].to_numpy(), found.runs[0] - found.runs[2]])
    windows = np.concatenate([settled["windows"].to_numpy(), np.ones(len(repeats), np.int64), found.runs[1]])
    runs = joined_windows(place, windows, kept, window)
    same = verified(runs, ids, ids, window)
    assert sorted(zip(same.start, same.end, same.kept)) == sorted(zip(runs.start, runs.end, runs.kept))  # no chance collision
    start, end, _ = apart(same.start, same.end, np.searchsorted(ends, tokens_of(same.kept), side="right"), ends)
    return start, end


def tokens_that_go(ids, borders, preferences, window, keep):
    """The same by the definition."""
    occurrences = {}
    for document in sorted(range(len(borders)), key=lambda number: (preferences[number], number)):
        low = borders[document - 1] if document else 0
        for start in range(low, borders[document] - window + 1):
            occurrences.setdefault(tuple(ids[start : start + window].tolist()), []).append(start)
    starts = [start for found in occurrences.values() if len(found) > 1 for start in (found[1:] if keep == "first" else found)]
    return {token for start in starts for token in range(start, start + window)}


@pytest.mark.parametrize("keep", ["first", "none"])
@settings(max_examples=200, deadline=None)
@given(
    documents=st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 1)), min_size=1, max_size=5),
    window=st.integers(2, 10),
    data=st.data(),
)
def test_what_goes_is_what_a_dictionary_of_windows_says(keep, documents, window, data):
    gram = data.draw(st.integers(1, window))
    ids = np.array([token for tokens, _ in documents for token in tokens], np.uint16)
    borders = np.cumsum([len(tokens) for tokens, _ in documents]).tolist()
    preferences = [preference for _, preference in documents]
    start, end = ranges_that_go(ids, borders, preferences, window, gram, keep)
    expected = tokens_that_go(ids, borders, preferences, window, keep)
    assert {token for low, high in zip(start, end) for token in range(low, high)} == expected
    assert (end[:-1] <= start[1:]).all()


def test_a_million_equal_tokens_take_no_more_than_their_number():
    count = 1_000_000
    ids = np.full(count, 3, np.uint16)
    start, end = ranges_that_go(ids, [count], [0], 50, 25, "first")
    assert (start.tolist(), end.tolist()) == ([1], [count])
    start, end = ranges_that_go(ids, [count], [0], 50, 25, "none")
    assert (start.tolist(), end.tolist()) == ([0], [count])


def test_of_a_hundred_thousand_copies_one_stays():
    one = np.random.default_rng(0).integers(0, 5000, 60).astype(np.uint16)
    ids = np.tile(one, 100_000)
    start, end = ranges_that_go(ids, (np.arange(100_000) + 1) * 60, [0] * 100_000, 50, 25, "first")
    assert (start == np.arange(1, 100_000) * 60).all()
    assert (end == start + 60).all()


def test_segments_that_are_equal_need_no_comparison():
    rows = [(1, 7, 0, 10, 3), (1, 7, 0, 50, 3), (1, 7, 1, 20, 3), (2, 8, 0, 11, 1)]
    found = shared_segments(sorted_table(list(zip(*rows)), FINGERPRINTS), "first").to_pylist()
    assert [(row["place"], row["kept"], row["compare"]) for row in found] == [(50, 10, 0), (20, 10, 0)]
    found = shared_segments(sorted_table(list(zip(*rows)), FINGERPRINTS), "none").to_pylist()
    assert [(row["place"], row["kept"], row["compare"]) for row in found] == [(10, 50, 0), (50, 10, 0), (20, 10, 0)]


def test_one_segment_of_each_kind_is_compared():
    far = 3 << 32
    rows = [(1, 7, 0, 10, 3), (1, 7, 0, far, 3), (1, 8, 0, 20, 2), (4, 9, 0, 30, 2)]
    found = shared_segments(sorted_table(list(zip(*rows)), FINGERPRINTS), "first").to_pylist()
    assert found == [
        {"rank": 0, "place": 10, "windows": 3, "kept": NOWHERE, "compare": 1},
        {"rank": 3, "place": far, "windows": 3, "kept": 10, "compare": 0},
        {"rank": 0, "place": 20, "windows": 2, "kept": NOWHERE, "compare": 1},
    ]


@pytest.mark.parametrize("reduce, empty", [(shared_segments, FINGERPRINTS), (repeated_windows, WINDOWS)])
def test_nothing_comes_of_nothing(reduce, empty):
    assert len(reduce(empty.empty_table(), "first")) == len(reduce(empty.empty_table(), "none")) == 0


def test_a_partner_is_an_equal_that_comes_first_or_second():
    leads, place = np.array([True, False, False, True, True, False]), ints(5, 6, 7, 8, 9, 4)
    assert partners(leads, place, "first").tolist() == [NOWHERE, 5, 5, NOWHERE, NOWHERE, 9]
    assert partners(leads, place, "none").tolist() == [6, 5, 5, NOWHERE, 4, 9]


def test_places_hold_a_file_and_a_token():
    places = place_of(2_147_483_647, ints(0, (1 << 32) - 1))
    assert rank_of(places).tolist() == [2_147_483_647] * 2
    assert tokens_of(places).tolist() == [0, (1 << 32) - 1]


def test_runs_are_joined_where_both_sides_go_on():
    runs = joined_windows(ints(9, 4, 6, 20), ints(1, 2, 3, 1), ints(108, 103, 105, 0), 5)
    assert (runs.start.tolist(), runs.end.tolist(), runs.kept.tolist()) == ([4, 20], [14, 25], [103, 0])
    runs = joined_windows(ints(4, 6), ints(2, 3), ints(103, 106), 5)
    assert (runs.start.tolist(), runs.end.tolist()) == ([4, 6], [10, 13])
    assert not len(joined_windows(ints(), ints(), ints(), 5).start)


def test_what_is_not_equal_is_not_verified():
    ids = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 9], np.uint16)
    others = np.array([0, 1, 2, 3, 4, 5, 0, 7, 8, 9, 9], np.uint32)
    same = verified(Ranges(ints(0, 0, 5), ints(10, 4, 9), place_of(7, ints(1, 1, 6))), ids, others, 4)
    assert (same.start.tolist(), same.end.tolist()) == ([0, 6, 0], [5, 10, 4])
    assert same.kept.tolist() == place_of(7, ints(1, 7, 1)).tolist()


@settings(deadline=None)
@given(ranges=st.lists(st.tuples(INT64S, st.integers(1, 9), st.integers(0, 2)), max_size=8), borders=st.sets(INT64S, max_size=4))
def test_ranges_are_set_apart(ranges, borders):
    ranges = [row for row in ranges if not any(row[0] < border < row[0] + row[1] for border in borders)]
    start, size, label = (np.array([row[column] for row in ranges], np.int64) for column in range(3))
    low, high, found = apart(start, start + size, label, ints(*sorted(borders)))
    expected = {}
    for begin, length, name in sorted(ranges, key=lambda row: (row[0], -row[1], row[2])):
        for token in range(begin, begin + length):
            expected.setdefault(token, name)
    assert [(token, name) for begin, end, name in zip(low, high, found) for token in range(begin, end)] == sorted(expected.items())
    for before, after, name, other in zip(high[:-1], low[1:], found[:-1], found[1:]):
        assert before < after or name != other or before in borders


@settings(deadline=None)
@given(ranges=st.lists(INT64S, max_size=8, unique=True), gone=st.lists(INT64S, max_size=8, unique=True))
def test_what_is_left_of_ranges(ranges, gone):
    (start, end), (gone_start, gone_end) = (
        (ints(*sorted(each)[::2])[: len(each) // 2], ints(*sorted(each)[1::2])) for each in (ranges, gone)
    )
    low, high = without(start, end, gone_start, gone_end)
    kept = {token for begin, stop in zip(start, end) for token in range(begin, stop)}
    taken = {token for begin, stop in zip(gone_start, gone_end) for token in range(begin, stop)}
    assert [token for begin, stop in zip(low, high) for token in range(begin, stop)] == sorted(kept - taken)
    assert (low < high).all()
