"""Verbs over a run's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.arguments import AsJson, RunFolder


def generate(
    folder: RunFolder,
    text: Annotated[str, typer.Argument(help="The text to continue; may be empty.")],
    tokens: Annotated[int, typer.Option(min=1, help="At most so many new tokens.")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=1, help="Draw among the k likeliest.")] = 40,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal text.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Continue a text with the newest checkpoint of a run."""
    from headrace.config import ConfigError
    from headrace.evaluate.generate import generate as continue_text
    from headrace.evaluate.watcher import latest_checkpoint

    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        raise ConfigError(f"{folder}: no committed checkpoint below train/checkpoints; `headrace run` makes them.")
    made = continue_text(checkpoint, text, tokens, temperature, top_k, seed)
    print(json.dumps({"checkpoint": checkpoint.name, "prompt": text, "text": made}, ensure_ascii=False) if as_json else text + made)


def export(
    checkpoint: Annotated[str, typer.Argument(help="RUN@STEP, or RUN for its newest checkpoint.")],
    out: Annotated[Path, typer.Option(help="A folder that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint's model in the Hugging Face format: config.json, model.safetensors, tokenizer.json."""
    from headrace.checkpoint import CheckpointError
    from headrace.checkpoint.export import export_hugging_face
    from headrace.checkpoint.named import find, place
    from headrace.config import ConfigError

    try:
        found = find(*place(checkpoint))
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    files = export_hugging_face(found, out.expanduser().absolute())
    size = sum(path.stat().st_size for path in files)
    if as_json:
        print(json.dumps({"checkpoint": str(found), "files": [str(path) for path in files], "bytes": size}))
        return
    print(f"{out}: {found.name} in {len(files)} files, {size / 1e6:,.1f} MB")
