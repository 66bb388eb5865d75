"""How deduplication grows: a synthetic corpus of known duplicates at several sizes, its cost per GB, its memory, and what it shuffles.

python benchmarks/growth.py [--json] [--sizes 0.1,0.3,1,3,10] [--sentence] [--folder DIR]. Sizes are 10^9 bytes of text. The
documents are written in ingest's layout by the generator, so ingest is not part of what is measured. A size takes about DISK times its
text on disk while it runs, and is deleted before the next.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import ours
import synthetic
from headrace import artifact, stage, storage
from headrace.dedup.levels import Dedup
from headrace.dedup.sentence import SentenceDedup
from rows import row, show

WORKERS = 2
NODES, CORES = 16, 32  # of the cluster that the larger sizes are projected to
SHUFFLE_MB_PER_CORE_S = 7  # of Ray's keyed shuffle: 1 TB in 573 s on 256 cores (ray-project/ray#63598)
SHORT_GB, SEVERAL = 0.5, 5  # sizes below it are measured so often
DISK = 1.2  # bytes on disk a byte of text, documents and working files together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--sizes", default="0.1,0.3,1,3,10", help="10^9 bytes of text, ascending; the first is the measure of the others")
    parser.add_argument("--sentence", action="store_true", help="the level of sentences, too")
    parser.add_argument("--folder", type=Path, help="where to work, on a disk with room; the system's temporary folder otherwise")
    arguments = parser.parse_args()
    sizes = [float(size) for size in arguments.sizes.split(",")]
    config = Dedup(sentence=SentenceDedup() if arguments.sentence else None)
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="headrace-growth-", dir=arguments.folder) as name:
        free = shutil.disk_usage(name).free
        if free < DISK * max(sizes) * 1e9:
            sys.exit(f"{name}: {free / 1e9:.0f} GB free, {DISK * max(sizes):.0f} needed; name another --folder or smaller --sizes.")
        ours.start_ray(WORKERS)
        measured(min(sizes[0], 0.02), config, Path(name) / "warm")
        runs = [median(size, config, Path(name) / f"{size:g}") for size in sizes]
    for smaller, larger in itertools.pairwise(runs):
        larger["marginal_s_per_gb"] = (larger["seconds"] - smaller["seconds"]) / (larger["gb"] - smaller["gb"])
    show("growth", [_row(run, runs[0]) for run in runs], arguments.json)
    for terabytes in (1, 100):
        print(projected(runs[-1], terabytes), file=sys.stderr)


def median(size: float, config: Dedup, folder: Path) -> dict[str, Any]:
    """The run of the median time: of several where one takes seconds, as long as a machine's moods."""
    runs = [measured(size, config, folder) for _ in range(SEVERAL if size < SHORT_GB else 1)]
    return sorted(runs, key=lambda run: float(run["seconds"]))[len(runs) // 2]


def measured(size: float, config: Dedup, folder: Path) -> dict[str, Any]:
    """Make a corpus of `size` GB, deduplicate it, and say what that took; nothing of it is left."""
    units = synthetic.plan(size * 1e9)
    records = stage.run_units(synthetic.write_unit, units, folder, phase="synthesis", engine="ray")
    given = [
        {**unit, "documents": str(folder / "documents" / f"{unit['id']}.parquet"), "verdicts": [], "removed": [], "priority": 0}
        for unit in units
    ]
    stage.reset_peak_memory()
    before = stage.peak_memory()
    seconds, output = ours.deduplicate(given, config, folder / "dedup", "ray")
    driver = stage.peak_memory()
    timings = [storage.read_json(path)["timing"] for path in sorted((folder / "dedup" / "done").glob("*/*.json"))]
    assert config.document
    paths = [folder / "dedup" / "verdicts" / f"{unit['id']}.parquet" for unit in units]
    reasons = [artifact.read_table(path, ["reason"])["reason"] for path in paths]
    documents = units[-1]["stop"]
    run = {
        "gb": sum(record["counters"]["text_bytes"] for record in records) / 1e9,
        "documents": documents,
        "units": len(units),
        "seconds": seconds,
        "worker_seconds": sum(timing["seconds"] for timing in timings),
        "worker_peak_mib": max(timing["peak_rss_bytes"] for timing in timings) / (1 << 20),
        "driver_peak_mib": driver / (1 << 20),
        "driver_grew_mib": (driver - before) / (1 << 20),
        "disk_gb": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9,
        "shuffled_bytes_per_document": {name: round(count / documents, 2) for name, count in output.counters.items()},
        **synthetic.judged(units, reasons, config.document.threshold),
    }
    shutil.rmtree(folder)
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in run.items()}


def _row(run: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """The cost of a GB here against that at the first size; `equal`: every exact copy went, and nothing that is no duplicate."""
    cost, basis = run["seconds"] / run["gb"], first["seconds"] / first["gb"]
    shuffled = ", ".join(f"{name.removeprefix('shuffled_bytes_')} {count:g}" for name, count in run["shuffled_bytes_per_document"].items())
    marginal = f"; {run['marginal_s_per_gb']:.1f} s for each GB more than the size before" if "marginal_s_per_gb" in run else ""
    against = (
        f"{first['gb']:.2g} GB{marginal}; {run['documents']} documents, {run['units']} units, {run['gb'] * 1e3 / run['seconds']:.1f} MB/s, "
        f"{run['worker_seconds'] / run['gb']:.1f} worker s/GB; peak memory of a worker {run['worker_peak_mib']:.0f} MiB, "
        f"of the driver {run['driver_peak_mib']:.0f}; disk {run['disk_gb']:.2f} GB; shuffled bytes a document: {shuffled}; "
        f"recall exact {run['recall_exact']:.4f}, near {run['recall_near']:.4f} (expected {run['expected_near']:.4f}), "
        f"wrongly dropped {run['wrong']:.0f}"
    )
    equal = bool(run["recall_exact"] == 1 and run["wrong"] == 0)
    return row(f"deduplication of {run['gb']:.2g} GB", against, basis / cost, cost, basis, "s/GB", equal, run=run)


def projected(run: dict[str, Any], terabytes: float) -> str:
    """What so many TB take by a run's cost per GB and bytes per document: the arithmetic of README's paragraph.

    Both cores count for the whole of the run, idle or not, and the shuffles come on top at Ray's own speed, though they are in it.
    """
    documents = terabytes * 1e3 / run["gb"] * run["documents"]
    shuffled_gb = sum(run["shuffled_bytes_per_document"].values()) * documents / 1e9
    core_hours = terabytes * 1e3 * WORKERS * run["seconds"] / run["gb"] / 3600
    shuffle_hours = shuffled_gb * 1e3 / SHUFFLE_MB_PER_CORE_S / 3600
    hours = (core_hours + shuffle_hours) / (NODES * CORES)
    return (
        f"{terabytes:g} TB: {documents / 1e6:,.0f} M documents, {shuffled_gb:,.0f} GB shuffled, {core_hours:,.0f} core-hours of work and "
        f"{shuffle_hours:,.0f} of shuffle, {hours:.2f} hours on {NODES} nodes of {CORES} cores"
    )


if __name__ == "__main__":
    main()
