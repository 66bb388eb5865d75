"""A result's file: what was scored, under which definition, by which version and at what cost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from headrace import __version__, fence, storage
from headrace.stage import peak_memory


def publish(out: Path, found: dict[str, Any], definition: str, started: float) -> dict[str, Any]:
    """Publish what was found as a JSON file; what the file holds.

    Args:
        definition: of the numbers, in words.
        started: the monotonic clock when the work began, seconds.

    Raises:
        Fenced: a newer attempt at this job has begun; nothing is published.
    """
    result = {
        **found,
        "definition": definition,
        "harness_version": __version__,
        "seconds": round(time.monotonic() - started, 3),
        "peak_rss_bytes": peak_memory(),
    }
    fence.check()
    storage.write_json(out, result)
    return result
