"""Arguments that verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(help="The run's YAML; `headrace init` writes a commented one.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub.0.name=value, over the YAML")]
RunFolder = Annotated[Path, typer.Argument(help="A run's folder: what `out` named.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
