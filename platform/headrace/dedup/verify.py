"""Verification: the exact Jaccard similarity of the shingle sets of candidate pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit

from headrace import artifact, schema, storage
from headrace.dedup import sidecars, survivors
from headrace.stage import UnitResult
from headrace.text.shingles import shingle_sets

# `content` is the low half of the document's exact hash: whoever learns that two documents belong together learns it, too.
SHINGLE_SETS = pa.schema([("doc", pa.int64()), ("content", pa.uint64()), ("shingles", pa.large_list(pa.uint64()))])
CHUNK_PAIRS = 1 << 20  # verified at a time

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]


def jaccard(first: Uint64s, second: Uint64s) -> float:
    """|A and B| / |A or B| of two sets given as sorted distinct values; 0 for two empty sets."""
    offsets = np.array([0, len(first)]), np.array([0, len(second)])
    place = np.zeros(1, np.int64)
    return float(pair_jaccard(offsets[0], first, place, offsets[1], second, place)[0])


def pair_jaccard(
    offsets: Int64s, shingles: Uint64s, left: Int64s, other_offsets: Int64s, other_shingles: Uint64s, right: Int64s
) -> npt.NDArray[np.float64]:
    """Jaccard similarity of pairs of sets: float64 [P].

    Args:
        offsets, shingles: set i is shingles[offsets[i]:offsets[i + 1]], sorted and distinct.
        left: int64 [P], the first of each pair, among these sets.
        other_offsets, other_shingles, right: the same for the second of each pair.
    """
    return _pair_jaccard(offsets, shingles, left, other_offsets, other_shingles, right)


@dataclass(frozen=True)
class ShingleSets:
    """Shingle sets of some documents of one file, in the order of their numbers."""

    doc: Int64s  # [N], ascending
    content: Uint64s  # [N]
    offsets: Int64s  # [N + 1]
    shingles: Uint64s  # those of document i are shingles[offsets[i]:offsets[i + 1]], sorted and distinct

    def places(self, docs: Int64s) -> Int64s:
        """Where each of these documents is; all of them are there."""
        places = np.searchsorted(self.doc, docs)
        assert np.array_equal(self.doc[np.minimum(places, len(self.doc) - 1)], docs)
        return places


def load_shingle_sets(path: Path, docs: Int64s) -> ShingleSets:
    """The sets of these documents out of one sidecar."""
    table = sidecars.rows_between(path, "doc", int(docs.min()), int(docs.max()))
    table = table.filter(pc.is_in(table["doc"], pa.array(np.unique(docs)))).combine_chunks()
    listed = table["shingles"].chunk(0)
    offsets = listed.offsets.to_numpy()
    return ShingleSets(
        table["doc"].to_numpy(), table["content"].to_numpy(), offsets - offsets[0], listed.flatten().to_numpy(zero_copy_only=True)
    )


@njit(nogil=True, cache=True)
def _pair_jaccard(offsets: Any, shingles: Any, left: Any, other_offsets: Any, other_shingles: Any, right: Any) -> Any:
    scores = np.zeros(len(left), np.float64)
    for pair in range(len(left)):
        i, stop = offsets[left[pair]], offsets[left[pair] + 1]
        j, other_stop = other_offsets[right[pair]], other_offsets[right[pair] + 1]
        total = (stop - i) + (other_stop - j)
        shared = 0
        while i < stop and j < other_stop:
            a, b = shingles[i], other_shingles[j]
            # Three sums instead of three branches: which set is ahead is a coin toss that no predictor learns.
            shared += a == b
            i += a <= b
            j += b <= a
        if total:
            scores[pair] = shared / (total - shared)
    return scores


def write_shingle_sets(unit: dict[str, Any], folder: Path) -> UnitResult:
    """Second pass over the text: shingles/ of one documents file, the shingle sets of its candidates and no others."""
    docs = np.unique(sidecars.rows_of_rank(unit["pairs"], unit["rank"])["doc"].to_numpy())
    with pq.ParquetFile(unit["documents"]) as file:
        wanted = np.zeros(file.metadata.num_rows, bool)
    wanted[docs - schema.first_doc(unit["rank"])] = True
    hashes = artifact.read_table(Path(unit["work"]) / "exact" / f"{unit['id']}.parquet", ["doc", "low"])
    hashed_docs, content = hashes["doc"].to_numpy(), hashes["low"].to_numpy()
    with artifact.table_writer(folder / "work" / "shingles" / f"{unit['id']}.parquet", SHINGLE_SETS) as writer:
        for found, texts in sidecars.text_batches(Path(unit["documents"]), wanted):
            offsets, shingles = shingle_sets(texts)
            columns = [found, content[np.searchsorted(hashed_docs, found)]]
            listed = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(shingles))
            writer.write_table(pa.table([*map(pa.array, columns), listed], schema=SHINGLE_SETS))
    return UnitResult()


def verify_pairs(unit: dict[str, Any], folder: Path) -> UnitResult:
    """edges/ and links/ of one documents file: what its verified pairs, the candidates that reach the threshold, come down to.

    An edge names the best of the documents that dominate one, links are enough verified pairs to know who belongs together.
    Two sidecars are in memory at a time, that of this file and that of one file it has pairs with.
    """
    pairs = sidecars.rows_of_rank(unit["pairs"], unit["rank"])
    pairs = pairs.filter(pc.not_equal(pairs["doc"], pairs["better"]))
    doc, better, preference = (pairs[name].to_numpy() for name in ("doc", "better", "better_preference"))
    edges, links = survivors.EDGES.empty_table(), survivors.LINKS.empty_table()
    verified = 0
    if len(pairs):
        sidecar = Path(unit["work"]) / "shingles"
        here = better[better >> 32 == unit["rank"]]
        own = load_shingle_sets(sidecar / f"{unit['id']}.parquet", np.concatenate([doc, here]))
        names = {other["rank"]: other["id"] for other in storage.read_json(Path(unit["work"]) / "units.json")}
        for rank in np.unique(better >> 32).tolist():
            chosen = np.flatnonzero(better >> 32 == rank)
            other = own if rank == unit["rank"] else load_shingle_sets(sidecar / f"{names[rank]}.parquet", better[chosen])
            for start in range(0, len(chosen), CHUNK_PAIRS):
                some = chosen[start : start + CHUNK_PAIRS]
                left, right = own.places(doc[some]), other.places(better[some])
                scores = pair_jaccard(own.offsets, own.shingles, left, other.offsets, other.shingles, right)
                near = scores >= unit["document"]["threshold"]
                verified += int(near.sum())
                ends = [doc[some][near], better[some][near]]
                edge = [*ends, preference[some][near], scores[near]]
                edges = survivors.dominating(pa.concat_tables([edges, pa.table([*map(pa.array, edge)], schema=survivors.EDGES)]))
                link = [*ends, own.content[left][near], other.content[right][near]]
                links = survivors.thinned(pa.concat_tables([links, pa.table([*map(pa.array, link)], schema=survivors.LINKS)]))
    artifact.write_table(edges, folder / "work" / "edges" / f"{unit['id']}.parquet")
    artifact.write_table(links, folder / "work" / "links" / f"{unit['id']}.parquet")
    return UnitResult(counters={"candidate_pairs": len(pairs), "verified_pairs": verified})
