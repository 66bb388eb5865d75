"""Which documents go: groups of duplicates, and the rules that choose among them.

- `dominated` (default): a document goes if an exact copy or a verified near-duplicate of it comes before it by (preference, document
  number), whether or not that one stays itself. No chain of removals is followed: of A ~ B ~ C with A and C apart, C goes for B's sake
  though B goes for A's, but both A and C stay if B comes last. None can empty a group, whose first document always stays.
- `components`: of all documents that duplicates link, directly or through others, the first by (preference, document number) stays. What
  a document has in common with the one that stays may then be little: a chain of small changes is one group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace import artifact, schema, storage
from headrace.dedup import sidecars
from headrace.dedup.components import connected_components, spanning_forest
from headrace.dedup.cuts import DROPPED, write_level
from headrace.stage import UnitResult

Int64s = npt.NDArray[np.int64]

EXACT_DUPLICATE, NEAR_DUPLICATE = "exact_duplicate", "near_duplicate"
UNSCORED = -1.0  # of a pair that was not verified

# A verified pair: a document and one that comes before it.
LINKS = pa.schema(
    [
        ("doc", pa.int64()),
        ("preference", pa.int32()),
        ("better", pa.int64()),
        ("better_preference", pa.int32()),
        ("score", pa.float64()),  # Jaccard similarity, or UNSCORED
    ]
)

# A document that has a duplicate. `group` is the smallest document of its group, that of an index before all others; `content` the low half
# of that one's exact hash; `survivor` the first of the group by (preference, document number); `score` the highest similarity of the
# document with any other, 1 if it is a copy.
GROUPS = pa.schema(
    [
        ("doc", pa.int64()),
        ("group", pa.int64()),
        ("content", pa.uint64()),
        ("survivor", pa.int64()),
        ("survivor_preference", pa.int32()),
        ("score", pa.float64()),
    ]
)

FIRST_OF_INDEX = schema.first_doc(1 << 30)  # documents of an index are numbered from here on


def dominating(links: Sequence[pa.Table]) -> pa.Table:
    """For each document the link to the most similar better one; of equals to the first by (preference, document number)."""
    keys = [("doc", "ascending"), ("score", "descending"), ("better_preference", "ascending"), ("better", "ascending")]
    order = pa.concat_tables(links).sort_by(keys)
    doc = order["doc"].to_numpy()
    first = np.ones(len(doc), bool)
    first[1:] = doc[1:] != doc[:-1]
    return order.filter(pa.array(first))


def thinned(links: Sequence[pa.Table]) -> pa.Table:
    """Links enough to join what all of these join, fewer than there are documents, the highest score of every document among them.

    A spanning forest of the largest total score (Kruskal 1956): the same, in whatever parts it is made.
    """
    order = pa.concat_tables(links).sort_by([("score", "descending"), ("doc", "ascending"), ("better", "ascending")])
    return order.take(pa.array(spanning_forest(order["doc"].to_numpy(), order["better"].to_numpy())))


def link_groups(unit: dict[str, Any], folder: Path) -> UnitResult:
    """groups/all.parquet, GROUPS of all documents files; groups/largest.json, the size of the largest group by source.

    Some 200 bytes of memory for each document that has a duplicate. The groups of an index come in with what its documents were linked to.
    """
    links = pa.concat_tables([artifact.read_table(Path(path)) for path in unit["links"]])
    copies = pa.concat_tables([artifact.read_table(Path(path)) for path in unit["copies"]])
    known = pa.concat_tables([GROUPS.empty_table(), *(artifact.read_table(Path(path)) for path in unit["index_groups"])])
    ends = [[links["doc"], copies["doc"], known["doc"]], [links["better"], copies["kept"], known["survivor"]]]
    first, second = (_order(np.concatenate([column.to_numpy() for column in columns])) for columns in ends)
    nodes, group = connected_components(first, second)
    survivor, survivor_preference = _survivors(nodes, group, links, copies, known)
    score = np.full(len(nodes), UNSCORED)
    for end in ("doc", "better"):
        np.maximum.at(score, np.searchsorted(nodes, _order(links[end].to_numpy())), links["score"].to_numpy())
    score[np.searchsorted(nodes, _order(copies["doc"].to_numpy()))] = 1.0
    of_group, place = np.unique(group, return_inverse=True)
    content = _contents(_order(of_group), known, unit["hashes"])[place]
    columns = [_order(nodes), _order(group), content, survivor, survivor_preference, score]
    table = pa.table([pa.array(column) for column in columns], schema=GROUPS).sort_by("doc")
    artifact.write_table(table, folder / "work" / "groups" / "all.parquet", row_group_rows=1 << 16)
    own = nodes >= 0
    storage.write_json(folder / "work" / "groups" / "largest.json", _largest(nodes[own], group[own], unit["sources"]))
    return UnitResult()


def _order(docs: Int64s) -> Int64s:
    """Numbers that put the documents of an index, in their order, before all others; of these numbers, the documents."""
    return np.where((docs >= FIRST_OF_INDEX) | (docs < 0), docs ^ np.int64(-1 << 63), docs)


def _survivors(nodes: Int64s, group: Int64s, links: pa.Table, copies: pa.Table, known: pa.Table) -> tuple[Int64s, npt.NDArray[np.int32]]:
    """The first document of each node's group by (preference, document number), and its preference.

    A document whose preference nobody names here is a copy of one, or was linked to a survivor, that comes before it.
    """
    preference = np.full(len(nodes), np.iinfo(np.int32).max, np.int32)
    named = [(known, "survivor", "survivor_preference"), (copies, "kept", "kept_preference")]
    for table, doc, of_doc in [*named, (links, "doc", "preference"), (links, "better", "better_preference")]:
        preference[np.searchsorted(nodes, _order(table[doc].to_numpy()))] = table[of_doc].to_numpy()
    best = np.lexsort((nodes, preference, group))
    leads = np.ones(len(nodes), bool)
    leads[1:] = group[best][1:] != group[best][:-1]
    leader = best[leads][np.searchsorted(group[best[leads]], group)]
    return _order(nodes)[leader], preference[leader]


def _contents(docs: Int64s, known: pa.Table, hashes: Mapping[str, str]) -> npt.NDArray[np.uint64]:
    """Low half of the exact hash of each document; of one that an index has in a group, that of the group."""
    content = np.zeros(len(docs), np.uint64)
    for rank in np.unique(docs >> 32).tolist():
        here = np.flatnonzero(docs >> 32 == rank)
        table = artifact.read_table(Path(hashes[str(rank)]), ["doc", "low"])
        rows = schema.rows_of(table["doc"].to_numpy())
        content[here] = table["low"].to_numpy()[np.searchsorted(rows, schema.rows_of(docs[here]))]
    grouped = np.isin(docs, known["doc"].to_numpy())
    names, first = np.unique(known["doc"].to_numpy(), return_index=True)
    content[grouped] = known["content"].to_numpy()[first[np.searchsorted(names, docs[grouped])]]
    return content


def _largest(docs: Int64s, group: Int64s, sources: Mapping[str, str]) -> dict[str, int]:
    """Documents in the largest group that has one of a source, by source; those of an index are not counted."""
    _, place, size = np.unique(group, return_inverse=True, return_counts=True)
    found: Counter[str] = Counter()
    ranks = docs >> 32
    for rank in np.unique(ranks).tolist():
        source = sources[str(rank)]
        found[source] = max(found[source], int(size[place[ranks == rank]].max()))
    return dict(found)


def drop_repeats(unit: dict[str, Any], folder: Path) -> UnitResult:
    """document-dropped/ of one documents file, by the rule that its level names."""
    copies = sidecars.rows_of_rank(unit["copies"], unit["rank"])
    dropped = _components(unit, copies) if unit["document"]["rule"] == "components" else _dominated(unit, copies)
    write_level(dropped.sort_by("doc"), unit, folder, "document", "dropped")
    return UnitResult()


def _dominated(unit: Mapping[str, Any], copies: pa.Table) -> pa.Table:
    best = artifact.read_table(Path(unit["work"]) / "edges" / f"{unit['id']}.parquet")
    exact = _dropped(copies["doc"].to_numpy(), EXACT_DUPLICATE, copies["kept"].to_numpy(), np.ones(len(copies)))
    near = _dropped(best["doc"].to_numpy(), NEAR_DUPLICATE, best["better"].to_numpy(), best["score"].to_numpy())
    return pa.concat_tables([exact, near])


def _components(unit: Mapping[str, Any], copies: pa.Table) -> pa.Table:
    first = schema.first_doc(unit["rank"])
    linked = sidecars.rows_between(Path(unit["work"]) / "groups" / "all.parquet", "doc", first, first + (1 << 32) - 1)
    linked = linked.filter(pc.not_equal(linked["doc"], linked["survivor"]))
    copy = np.isin(linked["doc"].to_numpy(), copies["doc"].to_numpy())
    parts = [
        _dropped(some["doc"].to_numpy(), reason, some["survivor"].to_numpy(), some["score"].to_numpy())
        for reason, some in ((EXACT_DUPLICATE, linked.filter(pa.array(copy))), (NEAR_DUPLICATE, linked.filter(pa.array(~copy))))
    ]
    return pa.concat_tables(parts)


def _dropped(doc: Int64s, reason: str, kept: Int64s, score: npt.NDArray[np.float64]) -> pa.Table:
    scores = pa.array(score.astype(np.float32), mask=score == UNSCORED)
    return pa.table([pa.array(doc), pa.array([reason] * len(doc), pa.string()), pa.array(kept), scores], schema=DROPPED)
