"""Arguments that verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(help="The run's YAML; `headrace init` writes a commented one.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub.0.name=value, over the YAML")]


def named_folder(name: str) -> Path:
    """The folder that a user names: a path, or the URL of an object store."""
    from headrace import storage

    return storage.folder(name)


RunFolder = Annotated[
    Path, typer.Argument(parser=named_folder, metavar="RUN", help="A run's folder: what `out` named, a path, s3:// or gs://.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
