"""How much of the input may be unreadable before the stage gives up."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from headrace.artifact import StageError, read_table
from headrace.config import Config

log = logging.getLogger("headrace")

SHOWN = "`headrace inspect RUN --stage ingest` shows why"
HANDFUL = 10  # errors that are always allowed: one bad line in a file of twenty is 5 %, and no reason to stop


class ErrorBudget(Config):
    """Shares of the input that may be unreadable; ten records of a file and ten files are allowed whatever the share."""

    records: float = Field(default=0.01, ge=0, le=1)  # of a file's records: no JSON, no text, too long, ...; empty texts do not count
    files: float = Field(default=0.01, ge=0, le=1)  # of all files: truncated, corrupt, not the format, unreadable, ...


def file_accounts(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """One row a file of the input, ordered by source and relative path: the pieces of each added up.

    Args:
        paths: the `files/*.parquet` of every unit.

    Returns:
        {"source", "relative", "records", "documents", "errors", "failed"} a file.
    """
    if not paths:
        return []
    pieces = pa.concat_tables([read_table(path) for path in paths])
    how = {"records": "sum", "documents": "sum", "errors": "sum", "failed": "any"}
    files = pieces.group_by(["source", "relative"]).aggregate(list(how.items()))
    files = files.rename_columns({f"{name}_{function}": name for name, function in how.items()})
    return files.sort_by([("source", "ascending"), ("relative", "ascending")]).to_pylist()


def check_budget(records: Sequence[Mapping[str, Any]], budget: ErrorBudget, folder: Path) -> None:
    """Judge the input by what the units of ingest say of its files.

    A file may have max(10, `budget.records` of its records) errors, max(10, `budget.files` of the files) may have failed, and there
    must be a document at all; a source without one is warned of.

    Args:
        records: the units' records, of `run_units`.
        folder: the stage's, below which their files are.

    Raises:
        StageError: naming the worst file, the counts, the limit and the way out.
    """
    paths = [folder / file["path"] for record in records for file in record["files"] if file["path"].startswith("files/")]
    files = file_accounts(paths)
    over = [file for file in files if file["errors"] > max(HANDFUL, budget.records * file["records"])]
    if over:
        worst = max(over, key=lambda file: (file["errors"] / file["records"], file["relative"]))
        others = f" ({len(over) - 1} more files are over it)" if len(over) > 1 else ""
        raise StageError(
            f"ingest: {worst['source']}: {worst['relative']}: {worst['errors']:,} of {worst['records']:,} records could not be read "
            f"({worst['errors'] / worst['records']:.1%}); the limit is {budget.records:.1%} of a file's records, at least "
            f"{HANDFUL}{others}. {SHOWN}; mend or leave out the file, or raise errors.records."
        )
    failed = [file for file in files if file["failed"]]
    if len(failed) > max(HANDFUL, budget.files * len(files)):
        raise StageError(
            f"ingest: {len(failed):,} of {len(files):,} files could not be read to their end, the first {failed[0]['source']}: "
            f"{failed[0]['relative']}; the limit is {budget.files:.1%} of the files, at least {HANDFUL}. "
            f"{SHOWN}; mend or leave out the files, or raise errors.files."
        )
    without = sorted({file["source"] for file in files} - {file["source"] for file in files if file["documents"]})
    for source in without:
        log.warning("ingest: %s: no document in any of its files. %s.", source, SHOWN)
    if files and not any(file["documents"] for file in files):
        raise StageError(
            f"ingest: no document in any of {len(files):,} files, the first {files[0]['source']}: {files[0]['relative']}. {SHOWN}; "
            f"a wrong `format` or `text_field` of the source is the usual cause."
        )
