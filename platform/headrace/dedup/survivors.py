"""Which documents go: groups of duplicates, and the rule that chooses among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace import artifact
from headrace.dedup import sidecars
from headrace.dedup.components import connected_components, spanning_forest
from headrace.dedup.cuts import DROPPED, write_level
from headrace.stage import UnitResult

EXACT_DUPLICATE, NEAR_DUPLICATE = "exact_duplicate", "near_duplicate"

# A document and the best of the verified near-duplicates that come before it.
EDGES = pa.schema([("doc", pa.int64()), ("better", pa.int64()), ("better_preference", pa.int32()), ("score", pa.float64())])

# Two documents that belong together, and the low halves of their exact hashes.
LINKS = pa.schema([("doc", pa.int64()), ("better", pa.int64()), ("content", pa.uint64()), ("better_content", pa.uint64())])

GROUPS = pa.schema([("doc", pa.int64()), ("group", pa.int64()), ("content", pa.uint64())])


def link_groups(unit: dict[str, Any], folder: Path) -> UnitResult:
    """groups/all.parquet: every document that has a duplicate, the smallest document of its group, and that one's content hash."""
    links = [artifact.read_table(Path(path)) for path in unit["links"]]
    copies = [artifact.read_table(Path(path), ["doc", "kept", "content"]) for path in unit["copies"]]
    near, same = pa.concat_tables(links), pa.concat_tables(copies)
    first = np.concatenate([near["doc"].to_numpy(), same["doc"].to_numpy()])
    second = np.concatenate([near["better"].to_numpy(), same["kept"].to_numpy()])
    docs, groups = connected_components(first, second)
    content = np.empty(len(docs), np.uint64)
    content[np.searchsorted(docs, first)] = np.concatenate([near["content"].to_numpy(), same["content"].to_numpy()])
    content[np.searchsorted(docs, second)] = np.concatenate([near["better_content"].to_numpy(), same["content"].to_numpy()])
    table = pa.table([pa.array(docs), pa.array(groups), pa.array(content[np.searchsorted(docs, groups)])], schema=GROUPS)
    artifact.write_table(table, folder / "work" / "groups" / "all.parquet", row_group_rows=1 << 16)
    return UnitResult()


def drop_repeats(unit: dict[str, Any], folder: Path) -> UnitResult:
    """document-dropped/ of one documents file, by the rule `dominated`.

    A document goes if an exact copy or a verified near-duplicate of it comes before it by (preference, document number), whether or
    not that one stays itself: no chain of removals is followed, and none can empty a group, whose first document always stays.
    """
    copies = sidecars.rows_of_rank(unit["copies"], unit["rank"])
    best = artifact.read_table(Path(unit["work"]) / "edges" / f"{unit['id']}.parquet")
    reasons = pa.array([EXACT_DUPLICATE] * len(copies) + [NEAR_DUPLICATE] * len(best), pa.string())
    scores = np.concatenate([np.ones(len(copies)), best["score"].to_numpy()]).astype(np.float32)
    columns = [_joined(copies["doc"], best["doc"]), reasons, _joined(copies["kept"], best["better"]), pa.array(scores)]
    dropped = pa.table(columns, schema=DROPPED).sort_by("doc")
    write_level(dropped, unit, folder, "document", "dropped")
    return UnitResult()


def dominating(edges: pa.Table) -> pa.Table:
    """For each document with a verified better one, the edge to the most similar of them; of equals the first by (preference, number)."""
    order = edges.sort_by([("doc", "ascending"), ("score", "descending"), ("better_preference", "ascending"), ("better", "ascending")])
    doc = order["doc"].to_numpy()
    first = np.ones(len(doc), bool)
    first[1:] = doc[1:] != doc[:-1]
    return order.filter(pa.array(first))


def thinned(links: pa.Table) -> pa.Table:
    """Links enough to join what all of these join: fewer than there are documents."""
    return links.take(pa.array(spanning_forest(links["doc"].to_numpy(), links["better"].to_numpy())))


def _joined(first: pa.ChunkedArray, second: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([*first.chunks, *second.chunks])
