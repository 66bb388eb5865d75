"""Who stays: groups of duplicates, the rule that chooses among them, and the verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headrace import artifact, schema, storage
from headrace.dedup import sidecars
from headrace.dedup.components import connected_components, spanning_forest
from headrace.stage import UnitResult
from headrace.verdicts import kept_rows

EXACT_DUPLICATE, NEAR_DUPLICATE = "exact_duplicate", "near_duplicate"

# A document and the best of the verified near-duplicates that come before it.
EDGES = pa.schema([("doc", pa.int64()), ("better", pa.int64()), ("better_priority", pa.int32()), ("score", pa.float64())])

# Two documents that belong together, and the low halves of their exact hashes.
LINKS = pa.schema([("doc", pa.int64()), ("better", pa.int64()), ("content", pa.uint64()), ("better_content", pa.uint64())])

VERDICTS = pa.schema(
    [
        pa.field("doc", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),  # exact_duplicate | near_duplicate; null = kept, or rejected before
        pa.field("group", pa.int64(), nullable=False),  # smallest document that duplicates link this one to, directly or through others
        pa.field("content", pa.uint64(), nullable=False),  # low half of that document's exact hash; 0 for a document rejected before
        pa.field("score", pa.float32()),  # Jaccard similarity with the document it repeats
    ]
)
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


def judge(unit: dict[str, Any], folder: Path) -> UnitResult:
    """verdicts/ and removed/ of one documents file, by the rule `dominated`.

    A document goes if an exact copy or a verified near-duplicate of it comes before it by (priority, document number), whether or
    not that one stays itself: no chain of removals is followed, and none can empty a group, whose first document always stays.
    """
    work = Path(unit["work"])
    documents = artifact.read_table(Path(unit["documents"]), ["doc", "id"])
    doc = documents["doc"].to_numpy()
    kept = kept_rows(unit)
    copies = sidecars.rows_of_rank(unit["copies"], unit["rank"])
    best = artifact.read_table(work / "edges" / f"{unit['id']}.parquet")
    removed = np.concatenate([copies["doc"].to_numpy(), best["doc"].to_numpy()])
    keepers = np.concatenate([copies["kept"].to_numpy(), best["better"].to_numpy()])
    scores = np.concatenate([np.ones(len(copies)), best["score"].to_numpy()]).astype(np.float32)
    rows = np.searchsorted(doc, removed)
    reason = np.full(len(doc), None, object)
    reason[rows[: len(copies)]] = EXACT_DUPLICATE
    reason[rows[len(copies) :]] = NEAR_DUPLICATE
    score = np.full(len(doc), np.nan, np.float32)
    score[rows] = scores
    group, content = _groups(unit, doc)
    columns = [doc, pa.array(reason, pa.string()), group, content, pa.array(score, mask=np.isnan(score))]
    artifact.write_table(pa.table([*map(pa.array, columns)], schema=VERDICTS), folder / "verdicts" / f"{unit['id']}.parquet")

    order = np.argsort(rows)
    nothing = pa.nulls(len(rows), pa.int64())
    listed = [
        pa.array(removed[order]),
        documents["id"].take(pa.array(rows[order])).combine_chunks(),
        pa.array(["document"] * len(rows), pa.string()),
        nothing,
        nothing,
        _ids(keepers[order], work),
        pa.array(scores[order]),
    ]
    artifact.write_table(pa.table(listed, schema=schema.REMOVED), folder / "removed" / f"{unit['id']}.parquet")
    return UnitResult(
        rows_in=int(kept.sum()),
        rows_out=int(kept.sum()) - len(rows),
        rejected={EXACT_DUPLICATE: len(copies), NEAR_DUPLICATE: len(best)},
    )


def dominating(edges: pa.Table) -> pa.Table:
    """For each document with a verified better one, the edge to the most similar of them; of equals the first by (priority, number)."""
    order = edges.sort_by([("doc", "ascending"), ("score", "descending"), ("better_priority", "ascending"), ("better", "ascending")])
    doc = order["doc"].to_numpy()
    first = np.ones(len(doc), bool)
    first[1:] = doc[1:] != doc[:-1]
    return order.filter(pa.array(first))


def thinned(links: pa.Table) -> pa.Table:
    """Links enough to join what all of these join: fewer than there are documents."""
    return links.take(pa.array(spanning_forest(links["doc"].to_numpy(), links["better"].to_numpy())))


def _groups(unit: dict[str, Any], doc: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Group and content of each document: its own where duplicates link it to none, content 0 where it was rejected before."""
    group, content = doc.copy(), np.zeros(len(doc), np.uint64)
    if len(doc):
        hashes = artifact.read_table(Path(unit["work"]) / "exact" / f"{unit['id']}.parquet", ["doc", "low"])
        content[np.searchsorted(doc, hashes["doc"].to_numpy())] = hashes["low"].to_numpy()
        linked = sidecars.rows_between(Path(unit["work"]) / "groups" / "all.parquet", "doc", int(doc[0]), int(doc[-1]))
        rows = np.searchsorted(doc, linked["doc"].to_numpy())
        group[rows], content[rows] = linked["group"].to_numpy(), linked["content"].to_numpy()
    return group, content


def _ids(docs: npt.NDArray[np.int64], work: Path) -> pa.Array:
    """The `id` of each document, looked up in the documents files that hold them."""
    ids = np.full(len(docs), None, object)
    paths = {other["rank"]: other["documents"] for other in storage.read_json(work / "units.json")}
    for rank in np.unique(docs >> 32).tolist():
        here = docs >> 32 == rank
        with pq.ParquetFile(paths[rank], page_checksum_verification=True) as file:
            column = file.read(columns=["id"])["id"]
        ids[here] = column.take(pa.array(docs[here] - schema.first_doc(rank))).to_pylist()
    return pa.array(ids, pa.string())
