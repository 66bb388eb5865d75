"""Verbs that show, compare, publish and clear away data."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from headrace.cli.arguments import AsJson, RunFolder
from headrace.terminal import print_table, tracked


def inspect(
    folder: RunFolder,
    stage: Annotated[str, typer.Option(help="ingest, filters, dedup or decontaminate.")] = "filters",
    reason: Annotated[str | None, typer.Option(help="Only what was rejected for this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What a stage rejected, and why: nothing vanishes."""
    from headrace.inspection import rejected

    rows = rejected(folder, stage, reason, limit)
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    head = ("source", "id", "reason", "details")
    print_table((*head, "text"), ([*(row[name] for name in head), row["text"][:120].replace("\n", " ")] for row in rows))


def materialize(
    folder: RunFolder,
    out: Annotated[Path, typer.Option(help="An empty folder, or one to be made.")],
    form: Annotated[Literal["jsonl", "parquet"], typer.Option("--format", help="jsonl is written as zstd.")] = "jsonl",
    as_json: AsJson = False,
) -> None:
    """The clean corpus as files: what every stage keeps, without what was cut."""
    from headrace.materialize import materialize as write_corpus
    from headrace.run import open_run

    open_run(folder)
    found = write_corpus(folder, out, form, functools.partial(tracked, what="materialize", kind="units"))
    if as_json:
        print(json.dumps(found))
        return
    counts = f"{found['documents']:,} documents, {found['text_bytes'] / 1e6:,.1f} MB of text, {found['cut_chars']:,} characters cut"
    print(f"{out}: {found['files']:,} files, {counts}")


def overlap(
    a: Annotated[str, typer.Argument(help="A text; or a file, folder or pattern (JSONL, Parquet, text, WARC; .gz .zst .lz4).")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    n: Annotated[str, typer.Option("--n", help="Words of the n-grams to compare.")] = "1,2,3,5",
    threshold: Annotated[float, typer.Option(help="Jaccard similarity from which two documents are counterparts.")] = 0.75,
    text: Annotated[bool, typer.Option("--text", help="Both are texts, also where a file is called so.")] = False,
    as_json: AsJson = False,
) -> None:
    """How much two texts or corpora share: words, n-grams, and documents of B that are in A."""
    from headrace.dedup.comparison import compare, numbers, print_comparison, side

    found = compare(side(a, "A", text), side(b, "B", text), numbers(n), threshold)
    print(json.dumps(found, indent=1)) if as_json else print_comparison(found, Console())


def clean(
    folder: RunFolder, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False, as_json: AsJson = False
) -> None:
    """Remove data artifacts that the run's configuration does not refer to, and what killed workers left."""
    from headrace import storage
    from headrace.control.controller import sole_driver
    from headrace.inspection import unreferenced
    from headrace.run import open_run

    open_run(folder)
    with sole_driver(folder):
        found = unreferenced(folder)
        if not dry_run:
            for path, _ in found:
                storage.remove(path) if path.is_file() else storage.remove_tree(path)
    size = sum(bytes_ for _, bytes_ in found)
    if as_json:
        print(json.dumps({"removed": [storage.name(path) for path, _ in found], "bytes": size, "dry_run": dry_run}))
        return
    for path, bytes_ in found:
        print(f"{storage.name(path)}  {bytes_ / 1e6:,.1f} MB")
    print(f"{'would remove' if dry_run else 'removed'} {len(found)} artifacts, {size / 1e6:,.1f} MB")
