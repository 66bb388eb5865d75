"""Charts of the report: HTML and inline SVG that scale to any width, since only the lines stretch and the text does not."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headrace.report.numbers import finite, significant

PACES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)  # seconds between marks of a clock
BOX = 1000  # the SVG's own units on both axes; lines keep their width when it is stretched
Point = tuple[float, float | None]


@dataclass(frozen=True)
class Series:
    """One curve: (x, y) in order of x; a y that is None or not finite leaves a gap."""

    name: str
    points: Sequence[Point]
    kind: Literal["line", "dots"] = "line"
    band: Sequence[tuple[float, float | None, float | None]] = ()  # (x, low, high) behind the line


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round values in [low, high], 1, 2 or 5 times a power of ten apart."""
    raw = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / raw)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """The range to show: with room above and below, and never empty."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (0.0 if low >= 0 and low - room < 0 else low - room), high + room


def line_chart(title: str, x_name: str, unit: str, series: Sequence[Series], note: str = "", from_zero: bool = False) -> str:
    """A figure with one or more curves; one that says so where there is nothing finite to draw.

    Args:
        from_zero: let the vertical axis begin at zero, where the size of a change is only to be judged against the whole.
    """
    drawn = [(s, [(x, y) for x, raw in s.points if (y := finite(raw)) is not None]) for s in series]
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    head = _head(title, unit, note)
    if not ys:
        return f'<figure class="chart">{head}<p class="none">No finite values yet.</p></figure>'
    ys += [edge for s in series for _, low, high in s.band for raw in (low, high) if (edge := finite(raw)) is not None]
    x_low, x_high = (min(xs), max(xs)) if min(xs) < max(xs) else (min(xs) - 1, max(xs) + 1)
    y_low, y_high = bounds([*ys, 0.0] if from_zero else ys)

    def across(x: float) -> float:
        return BOX * (x - x_low) / (x_high - x_low)

    def up(y: float) -> float:
        return BOX * (y - y_low) / (y_high - y_low)

    shapes, dots = [], []
    for number, (s, points) in enumerate(drawn):
        band = [
            (x, low, high)
            for x, raw_low, raw_high in s.band
            if (low := finite(raw_low)) is not None and (high := finite(raw_high)) is not None
        ]
        if len(band) > 1:
            outline = [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
            shapes.append(f'<polygon class="band" points="{" ".join(f"{across(x):.1f},{BOX - up(y):.1f}" for x, y in outline)}"/>')
        if s.kind == "line":
            shapes += [f'<polyline class="line s{number}" points="{part}"/>' for part in _runs(s.points, across, up)]
        if s.kind == "dots" or len(points) == 1:
            dots += [
                f'<i class="dot s{number}" style="left:{across(x) / 10:.2f}%;bottom:{up(y) / 10:.2f}%" '
                f'title="{html.escape(f"{s.name}, {x_name} {x:,.0f}: {significant(y, 4)} {unit}")}"></i>'
                for x, y in points
            ]
    x_ticks, y_ticks = ticks(x_low, x_high, 6), ticks(y_low, y_high)
    lines = "".join(f'<line class="grid" x1="0" x2="{BOX}" y1="{BOX - up(y):.1f}" y2="{BOX - up(y):.1f}"/>' for y in y_ticks)
    labels = "".join(f'<span class="y" style="bottom:{up(y) / 10:.2f}%">{_tick(y, y_ticks)}</span>' for y in y_ticks)
    labels += "".join(f'<span class="x" style="left:{across(x) / 10:.2f}%">{_tick(x, x_ticks)}</span>' for x in x_ticks)
    legend = "".join(f'<span><i class="key s{number} {s.kind}"></i>{html.escape(s.name)}</span>' for number, s in enumerate(series))
    svg = (
        f'<svg viewBox="0 0 {BOX} {BOX}" preserveAspectRatio="none" role="img" aria-label="{html.escape(title)}">'
        f"{lines}{''.join(shapes)}</svg>"
    )
    key = f'<div class="legend">{legend}</div>' if len(series) > 1 else ""
    return (
        f'<figure class="chart">{head}{key}<div class="plot">{svg}{"".join(dots)}{labels}</div>'
        f'<div class="axis">{html.escape(x_name)}</div></figure>'
    )


def _runs(points: Sequence[Point], across: object, up: object) -> list[str]:
    """Coordinates of each stretch of two or more finite points."""
    assert callable(across) and callable(up)
    runs: list[list[str]] = [[]]
    for x, raw in points:
        y = finite(raw)
        if y is None:
            runs.append([])
        else:
            runs[-1].append(f"{across(x):.1f},{BOX - up(y):.1f}")
    return [" ".join(run) for run in runs if len(run) > 1]


def _tick(value: float, of: Sequence[float]) -> str:
    """A tick's label with as many places as its distance to the next needs."""
    largest = max(abs(v) for v in of)
    step = of[1] - of[0] if len(of) > 1 else abs(value) or 1.0
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if largest >= 10 * factor:
            scaled, step = value / factor, step / factor
            return f"{scaled:,.{_places(step)}f}{unit if value else ''}"
    if 0 < largest < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-") if value else "0"
    return f"{value:,.{_places(step)}f}"


def _places(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _head(title: str, unit: str, note: str) -> str:
    extra = f"<b>{html.escape(note)}</b>" if note else ""
    return f"<figcaption><span>{html.escape(title)} <small>{html.escape(unit)}</small></span>{extra}</figcaption>"


@dataclass(frozen=True)
class Bar:
    """One bar of a horizontal bar chart; `text` stands behind it, `note` below its name."""

    name: str
    value: float | None
    text: str
    note: str = ""
    strong: bool = False  # in the accent colour


def breakable(name: str) -> str:
    """An identifier, escaped, that may be broken behind its colons and underscores."""
    return re.sub(r"([:_])", r"\1<wbr/>", html.escape(name))


def bar_chart(bars: Sequence[Bar], largest: float | None = None) -> str:
    """Horizontal bars from zero, one a row."""
    known = [b.value for b in bars if finite(b.value) is not None and b.value is not None]
    most = largest or max([*known, 0.0]) or 1.0
    rows = []
    for bar in bars:
        value = finite(bar.value)
        width = 0.0 if value is None else max(0.0, min(100.0, 100 * value / most))
        note = f"<small>{html.escape(bar.note)}</small>" if bar.note else ""
        rows.append(
            f'<div class="bar{" strong" if bar.strong else ""}"><span class="name">{breakable(bar.name)}{note}</span>'
            f'<span class="track"><i style="width:{width:.2f}%"></i></span><span class="value">{html.escape(bar.text)}</span></div>'
        )
    return f'<div class="bars">{"".join(rows)}</div>'


@dataclass(frozen=True)
class Span:
    """A piece of work on the clock, in seconds since the run began: waiting for its start-up from `begin`, at work from `work`."""

    row: str
    begin: float
    work: float
    end: float
    title: str


def timeline(spans: Sequence[Span], total: float) -> str:
    """When each piece of work ran: a row for each name, in order of first appearance."""
    total = total if total > 0 else 1.0
    rows: dict[str, list[Span]] = {}
    for span in spans:
        rows.setdefault(span.row, []).append(span)

    def part(kind: str, begin: float, end: float, title: str) -> str:
        width = max(0.15, 100 * (end - begin) / total)
        return f'<i class="{kind}" style="left:{100 * begin / total:.3f}%;width:{width:.3f}%" title="{html.escape(title)}"></i>'

    body = "".join(
        f'<div class="lane"><span class="name">{html.escape(name)}</span><span class="track">'
        + "".join(
            (part("start", s.begin, s.work, f"{s.title}, start-up") if s.work > s.begin else "") + part("work", s.work, s.end, s.title)
            for s in found
        )
        + "</span></div>"
        for name, found in rows.items()
    )
    pace = next((pace for pace in PACES if total / pace <= 6), 86400 * math.ceil(total / 86400 / 6))
    marks = "".join(
        f'<span class="x" style="left:{100 * t / total:.2f}%">{_clock(t)}</span>' for t in range(0, math.floor(total) + 1, pace)
    )
    return f'<div class="lanes">{body}<div class="lane clock"><span class="name"></span><span class="track">{marks}</span></div></div>'


def _clock(seconds: int) -> str:
    """0, 45 s, 2 min, 1:30 min, 3 h, 1:30 h: marks are whole seconds, minutes or half hours."""
    if seconds < 60:
        return f"{seconds} s" if seconds else "0"
    size, unit = (3600, "h") if seconds >= 3600 else (60, "min")
    whole, rest = divmod(seconds, size)
    return f"{whole}:{rest * 60 // size:02d} {unit}" if rest else f"{whole} {unit}"
