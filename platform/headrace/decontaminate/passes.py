"""Decontamination composed: the index, one pass over the text, a count of documents for each n-gram, the verdicts, the items.

What an earlier stage rejected or cut out plays no part. Only n-gram and document numbers are shuffled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace import artifact
from headrace.artifact import StageOutput
from headrace.decontaminate import scan, verdicts
from headrace.decontaminate.index import build_index
from headrace.decontaminate.items import read_benchmark
from headrace.decontaminate.presets import Benchmark, Decontaminate
from headrace.shuffle import KeyedEngine, keyed_reduce, num_partitions
from headrace.stage import Engine, UnitResult, run_units
from headrace.text import folding

RULES_VERSION = 1  # raised when what is looked for or what follows from it changes
VERSION = 100 * folding.VERSION + RULES_VERSION  # of the stage's output: a new definition of a word is a new verdict, too

# One row an item, in the order of the configuration. Suppressed n-grams are hit n-grams that too many documents hold; `documents`
# are those in which the item has a hit that counts. An item without n-grams is too short, or numbers only: it cannot be looked for.
ITEMS = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("n_grams", pa.int64(), nullable=False),
        pa.field("hit_n_grams", pa.int64(), nullable=False),
        pa.field("suppressed_n_grams", pa.int64(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("contaminated", pa.bool_(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)


def decontaminate(units: Sequence[dict[str, Any]], config: Decontaminate, folder: Path, engine: Engine) -> StageOutput:
    """Write index/, items/ and, for every documents file, verdicts/, removed/, hits/ and item-documents/.

    Args:
        units: {"id", "documents": path, "verdicts": [paths of earlier verdicts], "removed": [paths of what they cut] or absent}.
        folder: the stage's own folder.

    Raises:
        ConfigError: an evaluation set that cannot be read whole.
    """
    work, rules = folder / "work", config.rules()
    benchmarks = [benchmark.model_dump(mode="json") for benchmark in config.benchmarks]
    (made,) = run_units(make_index, [{"id": "all", "benchmarks": benchmarks, "n": config.n}], folder, phase="index", engine="local")
    shared = {"index": str(folder / "index"), "work": str(work), "n": config.n, "judge": config.judge, "rules": rules}
    planned = [{**unit, **shared} for unit in sorted(units, key=lambda unit: str(unit["id"]))]
    scanned = run_units(scan.scan, planned, folder, phase="scan", engine=engine)
    holders = [work / "holders" / f"{unit['id']}.parquet" for unit in planned]
    held: list[str] = []
    if holders:
        keyed: KeyedEngine = "auto" if engine == "ray" else "local"
        parts = num_partitions(holders)
        held += map(str, keyed_reduce(holders, "gram", scan.count_holders, work / "held", partitions=parts, engine=keyed))
    judged = run_units(verdicts.judge, [{**unit, "held": held} for unit in planned], folder, phase="verdicts", engine=engine)
    of_units = [str(folder / "item-documents" / f"{unit['id']}.parquet") for unit in planned]
    everything = {"id": "all", **shared, "held": held, "of_units": of_units}
    (summed,) = run_units(sum_items, [everything], folder, phase="items", engine="local")
    records = [{**last, "counters": {**first["counters"], **last["counters"]}} for first, last in zip(scanned, judged, strict=True)]
    return StageOutput(records, [*made["files"], *summed["files"]], {**made["counters"], **summed["counters"]})


def make_index(unit: dict[str, Any], folder: Path) -> UnitResult:
    """index/ of all evaluation sets together."""
    benchmarks = [Benchmark.model_validate(benchmark) for benchmark in unit["benchmarks"]]
    items = (item for benchmark in benchmarks for item in read_benchmark(benchmark, unit["n"]))
    return UnitResult(counters=build_index(items, unit["n"], folder / "index"))


def sum_items(unit: dict[str, Any], folder: Path) -> UnitResult:
    """items/all.parquet, and how many of each evaluation set are contaminated."""
    evidence = verdicts.load_evidence(Path(unit["index"]), tuple(unit["held"]), unit["n"], unit["rules"]["max_documents"])
    items = artifact.read_table(Path(unit["index"]) / "items.parquet")
    documents = np.zeros(len(items), np.int64)
    for path in unit["of_units"]:
        table = artifact.read_table(Path(path))
        documents[table["item"].to_numpy()] += table["documents"].to_numpy()
    postings = evidence.postings
    hit = np.repeat(evidence.documents > 0, np.diff(postings.offsets)) & postings.own
    silent = np.repeat(evidence.suppressed, np.diff(postings.offsets)) & postings.own
    hits, silenced = (np.bincount(postings.item[chosen], minlength=len(items)) for chosen in (hit, silent))
    contaminated = documents > 0
    if unit["rules"]["judge"] == "item":
        # PaLM asks for an item's n-grams anywhere in the training text, in however many documents.
        contaminated |= (evidence.speaking > 0) & (hits - silenced >= unit["rules"]["share"] * evidence.speaking)
    columns = [
        *(items[name] for name in ("benchmark", "item", "row", "n_grams")),
        *map(pa.array, (hits.astype(np.int64), silenced.astype(np.int64), documents, contaminated)),
        items["text"],
    ]
    artifact.write_table(pa.table(columns, schema=ITEMS), folder / "items" / "all.parquet")
    counters = {"contaminated_items": int(contaminated.sum())}
    benchmarks = items["benchmark"].to_numpy(zero_copy_only=False)
    of_all, of_contaminated = Counter(benchmarks), Counter(benchmarks[contaminated])
    for name, number in of_all.items():
        counters |= {f"items_of_{name}": number, f"contaminated_items_of_{name}": of_contaminated[name]}
    return UnitResult(counters=counters)
