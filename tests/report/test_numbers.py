import math

import pytest

from headrace.report.numbers import count, duration, finite, share, short, significant, size, with_error


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (1234567, "1,234,567"), (None, "–"), (2.6, "3")])
def test_count(value, text):
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (999_999, "1.00 M"), (14_706_313, "14.7 M"), (2.5e9, "2.50 G"), (None, "–")],
)
def test_short(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.42, "0.42 s"), (9.94, "9.9 s"), (12.3, "12 s"), (245, "4 min 05 s"), (3600 * 2 + 190, "2 h 03 min"), (None, "–")]
)
def test_duration(value, text):
    assert duration(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.1234, "12.3 %"), (0.0, "0.0 %"), (0.0001, "< 0.1 %"), (None, "–")])
def test_share(value, text):
    assert share(value) == text


def test_size_is_in_powers_of_ten():
    assert [size(v) for v in (12, 1_234_567, 88_340_000, None)] == ["12 B", "1.23 MB", "88.3 MB", "–"]


def test_significant_digits():
    assert [significant(v, 3) for v in (0.000312, 3.14159, 2050.0, 0.0, math.nan, 1e-9)] == [
        "0.000312",
        "3.14",
        "2,050",
        "0",
        "–",
        "1.00e-09",
    ]


def test_a_score_is_shown_with_its_error():
    assert with_error(1.6031, 0.0123) == "1.603 ± 0.012"
    assert with_error(1.6031, None) == "1.603"
    assert with_error(None, 0.1) == "–"


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "3", True])
def test_what_is_no_finite_number(value):
    assert finite(value) is None
