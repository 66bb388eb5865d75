import math
import re
from xml.etree import ElementTree

import pytest

from headrace.report.charts import Bar, Series, Span, bar_chart, bounds, line_chart, ticks, timeline


def shapes(chart):
    """Coordinates of every polyline of a chart, which must be well-formed."""
    tree = ElementTree.fromstring(chart)
    return [[tuple(map(float, point.split(","))) for point in line.get("points").split()] for line in tree.iter("polyline")]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (2.9, 3.4, [2.9, 3.0, 3.1, 3.2, 3.3, 3.4]), (0, 0.003, [0, 0.001, 0.002, 0.003])],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_a_line_goes_from_corner_to_corner():
    (line,) = shapes(line_chart("Loss", "step", "nats", [Series("loss", [(1, 0.0), (3, 10.0)])]))
    low, high = bounds([0.0, 10.0])
    assert line[0] == pytest.approx((0, 1000))
    assert line[1] == pytest.approx((1000, 1000 - 1000 * 10 / (high - low)), abs=0.1)


@pytest.mark.parametrize("gap", [math.nan, math.inf, None])
def test_values_that_are_not_finite_leave_a_gap(gap):
    points = [(1, 1.0), (2, 2.0), (3, gap), (4, 2.0), (5, 1.0), (6, gap), (7, 1.0)]
    lines = shapes(line_chart("Loss", "step", "", [Series("loss", points)]))
    assert [len(line) for line in lines] == [2, 2]  # the last point stands alone and makes no line


def test_one_point_is_a_dot():
    chart = line_chart("Loss", "step", "", [Series("loss", [(7, 3.25)])])
    assert shapes(chart) == []
    assert re.findall(r'class="dot s0" style="left:([\d.]+)%;bottom:([\d.]+)%"', chart) == [("50.00", "50.00")]
    assert "loss, step 7: 3.250" in chart


@pytest.mark.parametrize("value", [0.0, 5.0, -2.0, 1e-9, 1e12])
def test_a_constant_series_is_drawn_in_the_middle(value):
    (line,) = shapes(line_chart("lr", "step", "", [Series("lr", [(1, value), (2, value)])]))
    assert all(math.isfinite(y) and 0 < y <= 1000 for _, y in line)


@pytest.mark.parametrize("points", [[], [(1, math.nan)], [(1, None), (2, math.inf)]])
def test_nothing_to_draw_says_so(points):
    assert "No finite values yet." in line_chart("Loss", "step", "", [Series("loss", points)])


def test_an_axis_from_zero_shows_zero():
    assert '<span class="y" style="bottom:0.00%">0</span>' in line_chart(
        "v", "step", "", [Series("v", [(1, 50.0), (2, 51.0)])], from_zero=True
    )


def test_names_are_escaped():
    hostile = '<script>"&'
    for chart in (
        line_chart(hostile, hostile, hostile, [Series(hostile, [(1, 1.0)]), Series(hostile, [(1, 2.0)], "dots")], hostile),
        bar_chart([Bar(hostile, 1.0, hostile, hostile)]),
        timeline([Span(hostile, 0, 1, 2, hostile)], 2),
    ):
        assert "<script>" not in chart
        ElementTree.fromstring(chart)


def test_bars_are_in_proportion_and_absent_values_have_none():
    chart = bar_chart([Bar("a", 4.0, "4"), Bar("b", 1.0, "1", strong=True), Bar("c", None, "–"), Bar("d", math.nan, "–")])
    assert re.findall(r'style="width:([\d.]+)%"', chart) == ["100.00", "25.00", "0.00", "0.00"]
    assert bar_chart([]) == '<div class="bars"></div>'


def test_a_timeline_has_a_lane_a_name_and_shows_start_up():
    chart = timeline([Span("train", 0, 2, 10, "t"), Span("evaluate", 5, 6, 8, "e"), Span("evaluate", 8, 8, 10, "e")], 10)
    assert chart.count('class="lane"') == 2
    assert re.findall(r'class="start" style="left:([\d.]+)%;width:([\d.]+)%"', chart) == [("0.000", "20.000"), ("50.000", "10.000")]
    assert ">2 s<" in chart


@pytest.mark.parametrize(("total", "mark"), [(90, "1:30 min"), (2100, "30 min"), (20000, "4 h"), (1e6, "96 h")])
def test_the_clock_is_marked_in_round_times(total, mark):
    assert f">{mark}<" in timeline([Span("a", 0, 0, total, "a")], total)
