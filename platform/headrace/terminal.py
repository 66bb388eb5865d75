"""What the verbs show: progress on stderr, tables and a run's summary on stdout."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from headrace import storage


def tracked(items: Sequence[Any], what: str = "scoring", kind: str = "batches") -> Iterator[Any]:
    """The items, with a bar on a terminal and a line every ten seconds elsewhere."""
    console = Console(stderr=True)
    shown = time.monotonic()
    for done, item in enumerate(track(items, what, console=console, transient=True, disable=not console.is_terminal)):
        if not console.is_terminal and time.monotonic() - shown > 10.0:
            console.print(f"{what}: {done:,} of {len(items):,} {kind}")
            shown = time.monotonic()
        yield item


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_summary(folder: Path, report: dict[str, Any]) -> None:
    """The lines that sum up the report of the run in `folder`, and where its page is."""
    from headrace.report import summary_table

    rows = summary_table(report)
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")
    print(f"{'report':<{width}}  {storage.name(folder.absolute() / 'report.html')}")
