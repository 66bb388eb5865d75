from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dedup.fingerprints import FINGERPRINTS, gram_length, segments, window_hashes
from headrace.shuffle import row_bytes

TOKENS = st.lists(st.integers(0, 2), max_size=60)


def stretch_segments(tokens, window, gram, dtype=np.uint16):
    return segments(np.array(tokens, dtype), np.zeros(1, np.int64), np.array([len(tokens)]), window, gram)


def windows_of(tokens, window):
    return [tuple(tokens[start : start + window]) for start in range(len(tokens) - window + 1)]


@settings(max_examples=150, deadline=None)
@given(tokens=TOKENS, window=st.integers(1, 9), data=st.data())
def test_every_window_is_in_one_segment_and_equal_windows_have_equal_fingerprints(tokens, window, data):
    gram = data.draw(st.integers(1, window))
    found = stretch_segments(tokens, window, gram)
    fingerprints = fingerprint_of_each(found)
    assert sorted(fingerprints) == list(range(max(0, len(tokens) - window + 1)))
    assert found.counts.tolist() == [len(found.start)]
    assert found.windows.max(initial=0) <= window - gram + 1
    of_window, of_segment = {}, {}
    for place, content in enumerate(windows_of(tokens, window)):
        assert of_window.setdefault(content, fingerprints[place]) == fingerprints[place]
    for start, count, segment in zip(found.start.tolist(), found.windows.tolist(), found.segment.tolist()):
        assert of_segment.setdefault(segment, tokens[start : start + count + window - 1]) == tokens[start : start + count + window - 1]


@settings(max_examples=100, deadline=None)
@given(tokens=TOKENS, window=st.integers(1, 9), data=st.data())
def test_the_fingerprint_is_that_of_the_least_gram_of_the_last_if_several(tokens, window, data):
    gram = data.draw(st.integers(1, window))
    hashes, _ = window_hashes(np.array(tokens, np.uint16), *whole(tokens, gram), gram)
    found = stretch_segments(tokens, window, gram)
    expected = [hashes[start : start + window - gram + 1] for start in range(len(tokens) - window + 1)]
    assert fingerprint_of_each(found) == dict(enumerate(grams.min() for grams in expected))
    chosen = [start + int(np.flatnonzero(grams == grams.min())[-1]) for start, grams in enumerate(expected)]
    changes = {place for place in range(1, len(chosen)) if chosen[place] != chosen[place - 1]}
    assert set(found.start.tolist()) <= {0, *changes}
    assert len(found.start) + sum(count // period for _, count, period in found.runs.T.tolist()) == (1 + len(changes) if chosen else 0)


def fingerprint_of_each(found):
    """Window -> fingerprint, each once."""
    segments = zip(found.start.tolist(), found.windows.tolist(), found.fingerprint.tolist())
    places = [(start + each, fingerprint) for start, count, fingerprint in segments for each in range(count)]
    fingerprints = dict(places)
    assert len(places) == len(fingerprints)
    for start, count, period in found.runs.T.tolist():
        for place in range(start, start + count):
            assert place not in fingerprints
            fingerprints[place] = fingerprints[place - period]
    return fingerprints


def whole(tokens, length):
    """A list of tokens as one run of windows."""
    windows = max(0, len(tokens) - length + 1)
    return np.zeros(min(1, windows), np.int64), np.full(min(1, windows), windows, np.int16)


@settings(max_examples=100, deadline=None)
@given(tokens=TOKENS, window=st.integers(1, 9))
def test_window_hashes_are_equal_where_windows_are(tokens, window):
    hashes, places = window_hashes(np.array(tokens, np.uint16), *whole(tokens, window), window)
    contents = windows_of(tokens, window)
    assert places.tolist() == list(range(len(contents)))
    assert len(set(zip(hashes.tolist(), contents))) == len(set(hashes.tolist())) == len(set(contents))


@settings(deadline=None)
@given(stretches=st.lists(TOKENS, max_size=4), window=st.integers(2, 6))
def test_a_stretch_has_its_segments_wherever_it_stands(stretches, window):
    ids = np.array([token for tokens in stretches for token in [7, *tokens]], np.uint16)
    ends = np.cumsum([len(tokens) + 1 for tokens in stretches], dtype=np.int64)
    starts = ends - np.array([len(tokens) for tokens in stretches], np.int64)
    found = segments(ids, starts, ends, window, 2)
    alone = [stretch_segments(tokens, window, 2) for tokens in stretches]
    assert found.counts.tolist() == [len(each.start) for each in alone]
    for name in ("fingerprint", "segment", "windows"):
        assert getattr(found, name).tolist() == [value for each in alone for value in getattr(each, name).tolist()]
    assert found.start.tolist() == [start + value for start, each in zip(starts, alone) for value in each.start.tolist()]
    runs = [[start + run[0], *run[1:]] for start, each in zip(starts, alone) for run in each.runs.T.tolist()]
    assert found.runs.T.tolist() == runs


def test_two_in_w_plus_one_random_grams_are_chosen():
    ids = np.random.default_rng(0).integers(0, 50_000, 200_000).astype(np.uint16)
    found = segments(ids, np.zeros(1, np.int64), np.array([len(ids)]), 50, gram_length(50))
    assert gram_length(50) == 25
    assert len(found.start) / len(ids) == pytest.approx(2 / 27, rel=0.02)
    assert len(np.unique(found.fingerprint)) == len(found.start)


@pytest.mark.parametrize("period", [1, 2, 7, 26])
def test_what_repeats_itself_is_three_rows_however_long(period):
    tokens = list(range(period)) * (20_000 // period)
    found = stretch_segments(tokens, 50, 25)
    assert len(found.start) <= 5
    assert [(count > 19_000, distance) for _, count, distance in found.runs.T.tolist()] == [(True, period)]
    start, count, distance = found.runs[:, 0].tolist()
    assert windows_of(tokens[start : start + count + 49], 50) == windows_of(tokens[start - distance : start - distance + count + 49], 50)


def test_ids_of_any_width_have_equal_hashes():
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    narrow, wide = (stretch_segments(tokens, 4, 2, dtype) for dtype in (np.uint16, np.uint32))
    assert narrow.segment.tolist() == wide.segment.tolist()
    large = stretch_segments([*tokens, 70_000], 4, 2, np.uint32)
    assert large.segment.tolist()[:-1] == narrow.segment.tolist()[: len(large.segment) - 1]


def test_hashes_stay_what_they_are():  # so tables of different runs and machines can be joined
    found = stretch_segments([1, 2, 3, 4, 5, 6], 4, 2)
    hashes, _ = window_hashes(np.arange(1, 7).astype(np.uint16), np.zeros(1, np.int64), np.array([1], np.int16), 4)
    assert (found.fingerprint.tolist(), found.segment.tolist(), hashes.tolist()) == (
        [481022459064986276],
        [4723934107090901867],
        [784037482376313498],
    )


def test_a_row_takes_thirty_bytes():
    assert row_bytes(FINGERPRINTS) == 30
    assert [pa.types.is_integer(field.type) for field in FINGERPRINTS] == [True] * 5
