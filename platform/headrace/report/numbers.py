"""How a number reads in the report: digits grouped, a unit, no more digits than mean something."""

from __future__ import annotations

import math
import time


def finite(value: object) -> float | None:
    """The value as a float if it is a finite number, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def count(value: float | None) -> str:
    """A whole number: 1234567 -> 1,234,567."""
    return "–" if value is None else f"{round(value):,}"


def short(value: float | None) -> str:
    """A large number in three digits: 1234567 -> 1.23 M."""
    if value is None:
        return "–"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            return f"{significant(value / size, 3)} {unit}"
    return significant(value, 3)


def significant(value: float | None, digits: int) -> str:
    """A number to so many significant digits, without exponent where that stays readable: 0.000312, 3.14, 2,050."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value: 0.9996 is 1.00
    if exponent < -5:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def decimals(value: float | None, places: int) -> str:
    """A number to so many places: 3.1."""
    return "–" if value is None else f"{value:,.{places}f}"


def share(value: float | None) -> str:
    """A share as a percentage: 0.123 -> 12.3 %."""
    if value is None:
        return "–"
    if 0 < value < 0.0005:
        return "< 0.1 %"
    return f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 0.42 s, 12.3 s, 4 min 05 s, 2 h 03 min."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(value: float | None) -> str:
    """Bytes: 1234567 -> 1.23 MB (10^6 bytes)."""
    if value is None:
        return "–"
    return f"{short(value)}B" if value >= 999.5 else f"{value:.0f} B"


def with_error(value: float | None, stderr: float | None, places: int = 3) -> str:
    """A score with its standard error: 1.603 ± 0.012."""
    if value is None:
        return "–"
    return decimals(value, places) + (f" ± {decimals(stderr, places)}" if stderr is not None else "")


def moment(seconds: float | None) -> str:
    """A time since the epoch as date and time of day, UTC."""
    return "–" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
