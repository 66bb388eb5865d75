from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.artifact import read_table
from headrace.config import ConfigError
from headrace.dedup.levels import Dedup, stage_config
from headrace.dedup.preference import MAX_PRIORITIES, check_quality, falling_bits, preferences, priority_ranks


def test_priorities_are_ranked_from_one():
    assert priority_ranks([5, -2, 5, 0]) == {-2: 1, 0: 2, 5: 3}
    assert max(priority_ranks(range(MAX_PRIORITIES)).values()) << 24 < 1 << 31
    with pytest.raises(ConfigError, match="127 distinct priorities; 126 are the most"):
        priority_ranks(range(MAX_PRIORITIES + 1))


def bits(*values):
    return falling_bits(np.array(values, np.float64)).tolist()


def test_a_higher_quality_comes_first_and_what_is_unknown_last():
    order = [math.inf, 1e30, 2.0, 1.0, 0.5, 1e-30, 0.0, -1e-30, -0.5, -1.0, -1e30, -math.inf, math.nan]
    found = bits(*order)
    assert found == sorted(found)
    assert len(set(found)) == len(order)
    assert 0 <= found[0] < found[-1] < 1 << 24
    assert bits(-0.0) == bits(0.0)


def test_qualities_closer_than_its_bits_are_ties():
    step = 2.0**-15  # of a number in [1, 2): sign, exponent and 15 bits of the fraction are kept
    assert bits(1.5) == bits(1.5 + step / 2)
    assert bits(1.5) > bits(1.5 + step)
    assert bits(-1.5) == bits(-1.5 - step / 2)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_rounding_never_turns_an_order_round(one, other):
    low, high = sorted([one, other])
    assert bits(low)[0] >= bits(high)[0]


def test_a_document_s_preference_is_its_source_s_priority_and_then_its_quality(tmp_path, documents_file):
    unit = documents_file(tmp_path, 0, ["a"] * 5, measures={"entropy": [0.5, None, -1.0, 2.0, 0.5]})
    unit |= {"priority_rank": 3, "quality": None}
    assert preferences(unit).tolist() == [3 << 24] * 5
    found = preferences({**unit, "quality": "entropy"})
    assert found.dtype == np.int32
    assert set((found >> 24).tolist()) == {3}
    assert np.argsort(found, kind="stable").tolist() == [3, 0, 4, 2, 1]
    # A source whose filters do not measure it comes behind those that do.
    assert preferences({**unit, "quality": "other"}).tolist() == [(3 << 24) + (1 << 24) - 1] * 5


def test_a_quality_that_nothing_measures_is_refused_with_the_nearest():
    check_quality(None, [])
    check_quality("words", ["words"])
    with pytest.raises(ConfigError, match=r"dedup.quality = 'word': no source's filters measure that; did you mean 'words'\? They measure"):
        stage_config(Dedup(quality="word"), {}, ["words", "entropy"])
    with pytest.raises(ConfigError, match=r"measure that\. They measure nothing\."):
        check_quality("words", [])


@pytest.mark.parametrize("rule", ["dominated", "components"])
def test_the_better_of_two_copies_and_of_two_near_copies_stays(tmp_path, documents_file, dedup_stage, rule):
    words = [f"w{number}" for number in range(80)]
    near = [*words[:40], "other", *words[41:]]
    texts = [" ".join(words), "  ".join(words), " ".join(near), "some other text of more than five words"]
    unit = documents_file(tmp_path, 0, texts, measures={"quality": [1.0, 3.0, 2.0, 0.0]})
    config = Dedup.model_validate({"quality": "quality", "document": {"rule": rule, "bands": 64, "rows": 1}})
    stage = dedup_stage(tmp_path / "run", [unit], config)
    removed = {row["id"]: row["kept_id"] for path in stage.files("removed") for row in read_table(path).to_pylist()}
    assert removed == {"r0-0": "r0-1", "r0-2": "r0-1"}
