"""Document level: exact duplicates by hash, near-duplicates by MinHash LSH, every candidate verified before anything is removed.

Defined: words are runs of `\\w` of the lower-cased text, two documents are near-duplicates when the sets of their five-word shingles have
a Jaccard similarity of at least the threshold. Documents under five words have no shingles and take part in exact deduplication
only. Of duplicates the first by (source priority, document number) is preferred; the order in which anything arrives plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, PositiveInt

from headrace import schema, storage
from headrace.config import Config
from headrace.dedup import candidates, exact, signatures, survivors, verify
from headrace.shuffle import KeyedEngine, Reduce, keyed_reduce, num_partitions, partition_of
from headrace.stage import Engine, UnitFunction, run_units

VERSION = 1
NO_DOCUMENTS = (1 << 31) - 1  # stands for the rank of a file without documents: no document has it


class DocumentDedup(Config):
    """Whole documents that repeat others. The defaults are FineWeb's bands (Penedo et al. 2024, arXiv:2406.17557, section 3.4)."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.75  # Jaccard similarity of five-word shingle sets, inclusive
    bands: PositiveInt = 14
    rows: PositiveInt = 8  # MinHash values a band; documents meet that agree in all rows of a band
    rule: Literal["dominated"] = "dominated"  # drop a document that has a verified near-duplicate before it


def deduplicate(units: Sequence[dict[str, Any]], config: DocumentDedup, folder: Path, engine: Engine) -> list[dict[str, Any]]:
    """Write verdicts/ and removed/ for every documents file; the records of its units.

    Every phase leaves files below folder/work, which the caller deletes after the commit, and continues with what is missing
    there. Text is read twice (signatures, and shingles of the candidates) and is never shuffled.

    Args:
        units: {"id", "documents": path, "verdicts": [paths of earlier verdicts], "source", "priority"}; a lower priority number
            is preferred.
        folder: the stage's own folder.
        engine: of the units. With "ray" the keyed phases, too, run on Ray once they outgrow this process.
    """
    if not units:
        return []
    work = folder / "work"
    planned = _planned(units, config, work)
    keyed: KeyedEngine = "auto" if engine == "ray" else "local"

    def run(function: UnitFunction, phase: str, **more: list[str]) -> list[dict[str, Any]]:
        given = [{**unit, **{key: values[place] for key, values in more.items()}} for place, unit in enumerate(planned)]
        return run_units(function, given, folder, phase=phase, engine=engine)

    def collect(inputs: Sequence[Path], key: str, reduce: Reduce, name: str) -> list[Path]:
        return keyed_reduce(inputs, key, reduce, work / name, partitions=num_partitions(inputs), engine=keyed)

    def files(kind: str) -> list[Path]:
        return [work / kind / f"{unit['id']}.parquet" for unit in planned]

    def part_of_each(parts: Sequence[Path]) -> list[str]:
        places = partition_of(np.array([unit["rank"] for unit in planned], np.int32), len(parts))
        return [str(parts[place]) for place in places]

    signed = run(signatures.sign, "signatures")
    copies = collect(files("exact"), "high", exact.removed_copies, "copies")
    copies = collect(copies, "rank", unchanged, "copies-by-file")
    own_copies = part_of_each(copies)
    run(signatures.spread_bands, "bands", copies=own_copies)
    pairs = collect(files("bands"), "key", candidates.bucket_pairs, "candidates")
    pairs = collect(pairs, "rank", candidates.distinct, "pairs-by-file")
    own_pairs = part_of_each(pairs)
    run(verify.write_shingle_sets, "shingles", pairs=own_pairs)
    verified = run(verify.verify_pairs, "verify", pairs=own_pairs)
    whole = {"id": "all", "links": [str(path) for path in files("links")], "copies": [str(path) for path in copies]}
    run_units(survivors.link_groups, [whole], folder, phase="groups", engine=engine)
    judged = run(survivors.judge, "verdicts", copies=own_copies)
    return [{**last, "counters": {**first["counters"], **second["counters"]}} for first, second, last in zip(signed, verified, judged)]


def unchanged(rows: pa.Table) -> pa.Table:
    """A reduce that only brings rows together."""
    return rows


def _planned(units: Sequence[dict[str, Any]], config: DocumentDedup, work: Path) -> list[dict[str, Any]]:
    """The units in the order of their documents, with what every phase needs; written to units.json for look-ups across files."""
    shared = {"work": str(work), **config.model_dump()}
    planned = [{**unit, **shared, "rank": _rank(Path(unit["documents"]))} for unit in units]
    planned.sort(key=lambda unit: unit["id"])
    listed = [{key: unit[key] for key in ("id", "rank", "documents")} for unit in planned if unit["rank"] != NO_DOCUMENTS]
    ranks = [unit["rank"] for unit in listed]
    if len(set(ranks)) < len(ranks):
        repeated = next(rank for rank in ranks if ranks.count(rank) > 1)
        same = [unit["documents"] for unit in listed if unit["rank"] == repeated]
        raise ValueError(
            f"{same[0]} and {same[1]} hold documents of one number range ({schema.first_doc(repeated)} on); pass each file once."
        )
    storage.write_json(work / "units.json", listed)
    return planned


def _rank(documents: Path) -> int:
    with pq.ParquetFile(documents, page_checksum_verification=True) as file:
        for batch in file.iter_batches(1, columns=["doc"]):
            return schema.file_rank(batch["doc"][0].as_py())
    return NO_DOCUMENTS
