import pyarrow as pa
import pytest

from headrace.filters.thresholds import Threshold, first_breach

MEASURED = pa.table({"words": pa.array([3, 5, 8], pa.int64()), "share": pa.array([0.3, 0.1, 0.7], pa.float32())})


def verdict(*tests):
    return first_breach("rule", MEASURED, tests).to_pylist()


def test_bounds_are_inclusive():
    assert verdict(Threshold("words", "min", 5, "few")) == ["rule:few", None, None]
    assert verdict(Threshold("words", "max", 5, "many")) == [None, None, "rule:many"]


@pytest.mark.parametrize("limit, dropped", [(0.3, False), (0.2999, True), (0.3001, False)])
def test_a_limit_is_compared_in_the_measures_precision(limit, dropped):
    # float32(0.3) > 0.3: compared in double precision, three repeats in ten lines would be more than 0.30.
    assert verdict(Threshold("share", "max", limit, "high"))[0] == ("rule:high" if dropped else None)


def test_the_first_breached_test_gives_the_reason():
    tests = [Threshold("words", "min", 5, "few"), Threshold("share", "max", 0.2, "high")]
    assert verdict(*tests) == ["rule:few", None, "rule:high"]
    assert verdict(*reversed(tests)) == ["rule:high", None, "rule:high"]


def test_no_limit_is_no_test():
    assert verdict(Threshold("words", "max", None, "many")) == verdict() == [None, None, None]
