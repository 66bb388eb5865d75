"""What a stage leaves behind: files, a manifest written last, and a fingerprint that says when it is the same work."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from headrace import fence, storage
from headrace.paths import below, leading_out

log = logging.getLogger("headrace")

STAGES = ("ingest", "filters", "dedup", "decontaminate", "split", "tokenizer", "tokens")
DOCUMENT_STAGES = tuple(stage for stage in STAGES if stage != "tokenizer")  # those whose rows are the corpus, passed on
MANIFEST = "manifest.json"
FINGERPRINT = re.compile(r"[0-9a-f]{16}")  # what artifacts' folders are called


class StageError(RuntimeError):
    """A stage cannot go on and its message says why and what to do; the run ends with exit code 1."""


class QualityGateError(RuntimeError):
    """The data is outside the bounds that the configuration sets; the run ends with exit code 3."""


@dataclass(frozen=True)
class Artifact:
    """A committed stage output; a consumer opens only the files that its manifest lists."""

    folder: Path
    manifest: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, folder: Path) -> Artifact:
        """The artifact in `folder`.

        Raises:
            FileNotFoundError: it was never committed.
            StageError: its manifest names a file outside the folder.
        """
        found = cls(folder, storage.read_json(folder / MANIFEST))
        try:
            for entry in found.entries:
                below(folder, entry["path"])
        except ValueError as error:
            raise StageError(f"{folder / MANIFEST}: {error}; delete the file to have the stage made again.") from None
        return found

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @property
    def totals(self) -> dict[str, Any]:
        return dict(self.manifest["totals"])

    @property
    def units(self) -> list[dict[str, Any]]:
        return list(self.manifest["units"])

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What the manifest says of each file, those of no unit last."""
        return [entry for unit in self.units for entry in unit["files"]] + list(self.manifest.get("files", []))

    def files(self, kind: str) -> list[Path]:
        """Files of one kind (the first part of their path), ordered by unit."""
        return [self.folder / entry["path"] for unit in self.units for entry in unit["files"] if entry["path"].split("/")[0] == kind]

    def breaches(self) -> list[str]:
        """Listed files that are absent, of another size or links out of the folder; page checksums guard contents when they are read."""
        wrong = storage.breaches(self.folder, self.entries)
        names = (entry["path"] for entry in self.entries)
        return wrong + [f"{path}: a link out of its folder" for path in leading_out(self.folder, names)]


@dataclass(frozen=True)
class StageOutput:
    """What a stage hands over to be committed: its unit records, files of no unit, and counters of the whole."""

    units: Sequence[Mapping[str, Any]]
    files: Sequence[Mapping[str, Any]] = ()
    counters: Mapping[str, int] = field(default_factory=dict)


def fingerprint(stage: str, version: int, config: Any, inputs: Any) -> str:
    """Name of a stage's output: equal configuration, code version and inputs give the equal name (16 hex digits)."""
    canonical = json.dumps({"stage": stage, "version": version, "config": config, "inputs": inputs}, sort_keys=True, ensure_ascii=False)
    return xxhash.xxh3_64_hexdigest(canonical.encode())


def build(
    run: Path,
    stage: str,
    *,
    version: int,
    config: Any,
    inputs: Any,
    make: Callable[[Path], StageOutput],
    event: Callable[..., None],
) -> Artifact:
    """The stage's artifact: found whole from an earlier run, or made by `make(folder)` and committed.

    Args:
        config: JSON-able configuration of the stage alone.
        inputs: JSON-able; fingerprints of the artifacts or input files it reads.
        make: writes files below its folder; what an interrupted earlier call left there is found again by `run_units`.
        event: called with (stage, event name, **what).
    """
    name = fingerprint(stage, version, config, inputs)
    folder = run / "data" / stage / name
    fence.check()  # a driver that is out of date would take away what its successor's workers have aside
    if storage.present(folder / MANIFEST):
        artifact = Artifact.open(folder)
        breaches = artifact.breaches()
        if not breaches:
            log.info("%s: already done (%s)", stage, name)
            event(stage, "skipped", fingerprint=name)
            return artifact
        log.warning("%s: made again, since %s", stage, breaches[0])
        storage.remove(folder / MANIFEST)
        storage.remove_tree(folder / "done")
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unpublished(folder)
    event(stage, "started", fingerprint=name)
    started = time.monotonic()
    output = make(folder)
    _remove_unpublished(folder)
    manifest = {
        "stage": stage,
        "version": version,
        "fingerprint": name,
        "config": config,
        "inputs": inputs,
        "units": [dict(unit) for unit in output.units],
        "files": [dict(entry) for entry in output.files],
        "totals": totals(output),
    }
    _write_timings(folder)
    fence.check()
    storage.write_json(folder / MANIFEST, manifest)
    storage.remove_tree(folder / "work")
    storage.remove_tree(folder / "done")
    seconds = time.monotonic() - started
    peak = max((line["peak_rss_bytes"] for line in storage.read_lines(folder / "timings.jsonl")), default=None)
    rows = {key: manifest["totals"][key] for key in ("rows_in", "rows_out")}
    event(stage, "finished", fingerprint=name, seconds=round(seconds, 3), peak_rss_bytes=peak, **rows)
    log.info("%s: %d documents in, %d out, %.1f s", stage, rows["rows_in"], rows["rows_out"], seconds)
    return Artifact(folder, manifest)


def _remove_unpublished(folder: Path) -> None:
    """Drop what killed workers left aside; only the stage's one driver calls this, while no worker is at it."""
    for left in folder.glob(f"{storage.ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def totals(output: StageOutput) -> dict[str, Any]:
    """Sums over a stage's units: rows_in = rows_out + rejected, and the counters."""
    rejected: Counter[str] = Counter()
    counters: Counter[str] = Counter(dict(output.counters))
    for unit in output.units:
        rejected.update(unit["rejected"])
        counters.update(unit["counters"])
    rows_in = sum(unit["rows_in"] for unit in output.units)
    rows_out = sum(unit["rows_out"] for unit in output.units)
    assert rows_in == rows_out + sum(rejected.values()), f"{rows_in} rows in, {rows_out} out, {dict(rejected)} rejected"
    return {**dict(sorted(counters.items())), "rows_in": rows_in, "rows_out": rows_out, "rejected": dict(sorted(rejected.items()))}


def _write_timings(folder: Path) -> None:
    """Seconds and memory of each unit, beside the manifest and never in it: equal work must give an equal manifest."""
    records = [
        folder / "done" / phase / name for phase in storage.names(folder / "done") for name in storage.names(folder / "done" / phase)
    ]
    timings = [record["timing"] for record in storage.read_all(records)]
    lines = [{"phase": record.parent.name, "unit": record.stem, **timing} for record, timing in zip(records, timings)]
    storage.write_bytes(folder / "timings.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())


def write_table(table: pa.Table, path: Path, row_group_rows: int = 1 << 20, dictionary: bool = True) -> None:
    """A Parquet file whose pages carry checksums: without them a flipped byte is read back as wrong data.

    Args:
        dictionary: whether columns are tried as a dictionary of their values, which costs time and finds nothing in hashes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with table_writer(path, table.schema, dictionary) as writer:
        writer.write_table(table, row_group_size=row_group_rows)


def table_writer(path: Path, schema: pa.Schema, dictionary: bool = True) -> pq.ParquetWriter:
    """A writer of row groups for tables that do not fit in memory; same settings as `write_table`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"compression": "zstd", "use_dictionary": dictionary, "write_page_checksum": True, "store_schema": True}
    return pq.ParquetWriter(path, schema, **settings)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole Parquet file, its page checksums verified."""
    with pq.ParquetFile(storage.local(path), page_checksum_verification=True) as file:
        return file.read(columns=list(columns) if columns is not None else None)
