"""Our side of benchmarks/dedup.py: documents ingested once, the deduplication stage over them, and the whole from files to what is kept.

As a command, `ours.py SPEC` is that whole: it starts Ray, ingests the JSON Lines that the peers read, deduplicates, and names what stays.
"""

from __future__ import annotations

import atexit
import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from headrace import artifact, stage
from headrace.artifact import StageOutput
from headrace.dedup import levels
from headrace.ingest import documents, listing
from headrace.ingest.source import Source
from headrace.stage import Engine

# Read as other lines by some readers of JSON Lines, Python's own `splitlines` among them.
LINE_ENDS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


def start_ray(workers: int) -> float:
    """A local Ray of so many CPUs, quiet; the seconds that took."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    started = time.perf_counter()
    # Ray's sockets need a short path.
    temp = tempfile.mkdtemp(prefix="hrb-", dir="/tmp")
    atexit.register(shutil.rmtree, temp, ignore_errors=True)
    atexit.register(ray.shutdown)  # before that: what was registered last is called first
    ray.init(address="local", num_cpus=workers, include_dashboard=False, _temp_dir=temp, logging_level="ERROR", log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.enable_rich_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # again: the first context sets up the log
    return time.perf_counter() - started


def ingest(sources: Sequence[dict[str, Any]], folder: Path, engine: Engine) -> list[dict[str, Any]]:
    """Documents of these sources below `folder`, as the units of the stages behind."""
    units = listing.plan_units([Source(**source) for source in sources], None)
    stage.run_units(documents.ingest_unit, units, folder, phase="read", engine=engine)
    return [
        {
            "id": unit["id"],
            "source": unit["source"],
            "documents": str(folder / "documents" / f"{unit['id']}.parquet"),
            "verdicts": [],
            "removed": [],
            "priority": 0,
        }
        for unit in units
    ]


def read(units: Sequence[dict[str, Any]], *columns: str) -> list[list[Any]]:
    """Columns of all documents, in their order."""
    tables = [artifact.read_table(Path(unit["documents"]), columns) for unit in units]
    return [[value for table in tables for value in table[column].to_pylist()] for column in columns]


def export(units: Sequence[dict[str, Any]], folder: Path, parts: int = 4) -> int:
    """The same documents as JSON Lines for the peers, part-0.jsonl on, `id` being the document's number; the bytes of text in them.

    They are what ingest made of the corpus, so both sides work on the same texts.
    """
    folder.mkdir(parents=True)
    total = sum(pq.ParquetFile(unit["documents"]).metadata.num_rows for unit in units)
    row = size = 0
    outputs = [(folder / f"part-{part}.jsonl").open("w", encoding="utf-8", newline="\n") for part in range(parts)]
    for unit in units:
        for doc, text in zip(*read([unit], "doc", "text")):
            line = json.dumps({"id": str(doc), "text": text}, ensure_ascii=False).translate(LINE_ENDS)
            outputs[row * parts // total].write(line + "\n")
            size += len(text.encode())
            row += 1
    for output in outputs:
        output.close()
    return size


def deduplicate(
    units: Sequence[dict[str, Any]], config: levels.Dedup, folder: Path, engine: Engine, tokenizer: Path | None = None
) -> tuple[float, StageOutput]:
    """Seconds of the stage, and what it says."""
    started = time.perf_counter()
    output = levels.deduplicate(units, config, folder, engine, tokenizer)
    return time.perf_counter() - started, output


def kept(units: Sequence[dict[str, Any]], folder: Path) -> npt.NDArray[np.int64]:
    """Numbers of the documents that the verdicts in `folder` keep."""
    found = [np.empty(0, np.int64)]
    for unit in units:
        verdicts = artifact.read_table(folder / "verdicts" / f"{unit['id']}.parquet", ["doc", "reason"])
        found.append(verdicts.filter(verdicts["reason"].is_null())["doc"].to_numpy())
    return np.concatenate(found)


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    work = Path(spec["work"])
    start_ray(spec["workers"])
    units = ingest([{"name": "all", "kind": "prose", "path": spec["inputs"]}], work / "ingest", "ray")
    config = levels.Dedup.model_validate(spec["dedup"])
    seconds, _ = deduplicate(units, config, work / "dedup", "ray")
    docs, ids = read(units, "doc", "id")
    stays = np.isin(np.array(docs), kept(units, work / "dedup"))
    named = [int(each) for each, kept in zip(ids, stays) if kept]
    (work / "result.json").write_text(json.dumps({"seconds": seconds, "parts": {}, "kept": named}))


if __name__ == "__main__":
    main()
