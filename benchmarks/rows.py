"""One row as every benchmark prints it, and the table or JSON object that they make."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from typing import Any

CORES = os.cpu_count() or 1


def row(
    work: str,
    against: str,
    ratio: float,
    ours: float,
    theirs: float,
    unit: str,
    equal: bool | None,
    *,
    key: str | None = None,
    quality: tuple[float, float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A ratio above 1 is in our favour.

    Args:
        equal: whether both sides gave the same output; None where they cannot, and then `quality` (ours, theirs) says which is better.
        key: of the floor that this row is held against.
        more: further columns, for the reader of the JSON.
    """
    return {
        **({"key": key} if key else {}),
        "work": work,
        "against": against,
        "ratio": round(ratio, 3),
        "ours": round(ours, 4),
        "theirs": round(theirs, 4),
        "unit": unit,
        "equal": equal,
        "quality": None if quality is None else {"ours": round(quality[0], 4), "theirs": round(quality[1], 4)},
        **more,
    }


def show(name: str, rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print them."""
    if as_json:
        machine = f"{CORES} cores, {platform.machine()}, {platform.platform()}"
        print(json.dumps({"name": name, "machine": machine, "rows": list(rows)}, indent=1))
        return
    for each in rows:
        numbers = f"{each['ours']:>12,.2f} {each['theirs']:>12,.2f} {each['unit']:<10} {each['ratio']:>7.2f}x"
        print(f"{each['work']:<34} {numbers} {each['against']}")
