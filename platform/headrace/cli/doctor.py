"""The verb that looks at the machine and the cluster before, or when, something goes wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.arguments import AsJson

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.doctor import Finding

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def doctor(
    config: Annotated[Path | None, typer.Argument(help="A run's YAML, to look at its folder, its cluster and what it asks for.")] = None,
    address: Annotated[str | None, typer.Option(help="A cluster's dashboard, http://HOST:PORT, in place of the YAML's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether a run would work here and its cluster is closed to others; what to do where not. Exit code 1 if something is an error."""
    from rich.console import Console

    from headrace.doctor import examine

    found = []
    console = Console(highlight=False)
    for finding in examine(config, address):
        found.append(finding)
        if not as_json:
            print_finding(finding, console)
    counts = {level: sum(finding.level == level for finding in found) for level in STYLES}
    if as_json:
        print(json.dumps({**counts, "checks": [asdict(finding) for finding in found]}, indent=1))
    else:
        console.print(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors")
    if counts["error"]:
        raise typer.Exit(1)


def print_finding(finding: Finding, console: Console) -> None:
    """In columns on a terminal; elsewhere as one line, whatever its length."""
    from rich.table import Table
    from rich.text import Text

    told = [finding.found, *([f"-> {finding.do}"] if finding.do else [])]
    if not console.is_terminal:
        console.print(f"{finding.level:<7} {finding.check}: {' '.join(told)}", markup=False, soft_wrap=True)
        return
    row = Table.grid(padding=(0, 1))
    for width in (7, 22, None):
        row.add_column(width=width, overflow="fold")
    row.add_row(Text(finding.level, STYLES[finding.level]), Text(finding.check, "bold"), Text("\n".join(told)))
    console.print(row)
