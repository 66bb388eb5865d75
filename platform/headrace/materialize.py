"""The clean corpus of a run as files: the documents that every stage keeps, without the parts that were cut out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from headrace import artifact, storage
from headrace.config import ConfigError
from headrace.inspection import JUDGING, current, stage_folder
from headrace.schema import DOCUMENTS
from headrace.text.cuts import remaining
from headrace.verdicts import cuts_of, kept_rows, unit_inputs

Form = Literal["jsonl", "parquet"]
Tracked = Callable[[Sequence[dict[str, Any]]], Iterator[dict[str, Any]]]
SUFFIXES: dict[Form, str] = {"jsonl": ".jsonl.zst", "parquet": ".parquet"}
COLUMNS = pa.schema([column for column in DOCUMENTS if column.name != "doc"])  # `doc` numbers documents within one run only


def materialize(run: Path, out: Path, form: Form, tracked: Tracked = iter) -> dict[str, Any]:
    """Write the clean corpus of a run, a file for each documents file, named as it; those without a kept document are left out.

    Ingest reads such files back as the documents that they hold. What was cut or left out is not in them; what is held out for
    validation is. A row group of text is in memory at a time.

    Args:
        run: a run whose data stages are made.
        out: a folder that is empty or not there yet; every file in it is whole, but an interrupted call leaves fewer.
        tracked: passes the units on, and may show how far it is.

    Returns:
        {"folder", "files", "documents", "text_bytes", "cut_chars"}: UTF-8 bytes of what is written, code points left out of it.

    Raises:
        ConfigError: no such run, or its stages are not made; or the folder holds something or cannot be written to.
    """
    units = unit_inputs(current(run, "ingest"), [current(run, stage) for stage in _judging(run)])
    if any(storage.writable_folder(out, "--out").iterdir()):
        raise ConfigError(f"--out = {str(out)!r}: the folder is not empty; name another one, so that two corpora are not mixed.")
    found = {"files": 0, "documents": 0, "text_bytes": 0, "cut_chars": 0}
    for unit in tracked(units):
        if kept_rows(unit).any():
            with storage.scratch_folder(out, unit["id"]) as scratch:
                for name, count in _write(unit, scratch / f"{unit['id']}{SUFFIXES[form]}", form).items():
                    found[name] += count
                storage.publish_tree(scratch, out)
            found["files"] += 1
    return {"folder": str(out), **found}


def _judging(run: Path) -> list[str]:
    """The stages that judged this run's documents: deduplication may be turned off."""
    stage_folder(run, "ingest")
    names = storage.read_json(run / "data" / "current.json")
    return [stage for stage in JUDGING if stage in names]


def _write(unit: Mapping[str, Any], path: Path, form: Form) -> dict[str, int]:
    counts = {"documents": 0, "text_bytes": 0, "cut_chars": 0}
    tables = _clean(unit, counts)
    if form == "parquet":
        with artifact.table_writer(path, COLUMNS) as writer:
            for table in tables:
                writer.write_table(table)
    else:
        with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as writer:
            for table in tables:
                for row in table.to_pylist():
                    row["meta"] = None if row["meta"] is None else orjson.Fragment(row["meta"])
                    writer.write(orjson.dumps(row) + b"\n")
    return counts


def _clean(unit: Mapping[str, Any], counts: dict[str, int]) -> Iterator[pa.Table]:
    """The kept documents of each row group, as they are to be written; adds to `counts`."""
    kept, cuts = kept_rows(unit), cuts_of(unit)
    start = 0
    with pq.ParquetFile(storage.local(unit["documents"]), page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            wanted = kept[start : start + rows]
            start += rows
            if not wanted.any():
                continue
            table = file.read_row_group(group).filter(pa.array(wanted))
            whole = table["text"].to_pylist()
            texts = [remaining(text, cuts.of(doc)) for text, doc in zip(whole, table["doc"].to_pylist(), strict=True)]
            counts["documents"] += len(texts)
            counts["text_bytes"] += sum(len(text.encode()) for text in texts)
            counts["cut_chars"] += sum(map(len, whole)) - sum(map(len, texts))
            place = table.column_names.index("text")
            yield table.set_column(place, "text", pa.array(texts, pa.string())).select(COLUMNS.names).cast(COLUMNS)
