"""Verification: the exact Jaccard similarity of the shingle sets of candidate pairs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
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
from headrace.dedup.preference import preferences
from headrace.dedup.presets import Shingle
from headrace.dedup.shingle_sets import SetWriter, ShingleSets
from headrace.stage import UnitResult
from headrace.text.shingles import distinct_sets
from headrace.verdicts import text_batches

CHUNK_PAIRS = 1 << 20  # verified, and then reduced, at a time

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
    """Second pass over the text: shingles/ of one documents file.

    The sets of its candidates and no others; for an index, whose text is not there any more when it is read, those of all documents that
    have bands.
    """
    docs = sidecars.rows_of_rank(unit["pairs"], unit["rank"])["doc"].to_numpy()
    if unit["indexed"]:
        docs = artifact.read_table(Path(unit["work"]) / "bands" / f"{unit['id']}.parquet", ["doc"])["doc"].to_numpy()
    with pq.ParquetFile(storage.local(unit["documents"])) as file:
        wanted = np.zeros(file.metadata.num_rows, bool)
    wanted[schema.rows_of(docs)] = True
    shingle = Shingle.model_validate(unit["document"]["shingle"])
    with SetWriter(folder / "work" / "shingles" / f"{unit['id']}.sets", int(wanted.sum())) as writer:
        for found, texts in text_batches(Path(unit["documents"]), wanted):
            writer.write(schema.rows_of(found), *distinct_sets(*shingle.of(texts.to_pylist())))
    return UnitResult()


def verify_pairs(unit: dict[str, Any], folder: Path) -> UnitResult:
    """edges/ and links/ of one documents file: what its verified pairs, the candidates that reach the threshold, come down to.

    An edge names the best of the documents that dominate one, links are enough verified pairs to know who belongs together. Without
    verification every candidate is taken.
    """
    pairs = sidecars.rows_of_rank(unit["pairs"], unit["rank"])
    pairs = pairs.filter(pc.not_equal(pairs["doc"], pairs["better"]))
    edges = links = survivors.LINKS.empty_table()
    pending = [edges]
    verified = 0
    for found in _verified(unit, pairs):
        verified += len(found)
        pending.append(found)
        if sum(map(len, pending)) >= CHUNK_PAIRS:
            edges, links, pending = survivors.dominating([edges, *pending]), survivors.thinned([links, *pending]), []
    artifact.write_table(survivors.dominating([edges, *pending]), folder / "work" / "edges" / f"{unit['id']}.parquet")
    artifact.write_table(survivors.thinned([links, *pending]), folder / "work" / "links" / f"{unit['id']}.parquet")
    return UnitResult(counters={"candidate_pairs": len(pairs), "verified_pairs": verified})


def _verified(unit: dict[str, Any], pairs: pa.Table) -> Iterator[pa.Table]:
    """LINKS rows of the pairs that are near-duplicates, a table for each file that this one has candidates with, or some more."""
    doc, better, better_preference = (pairs[name].to_numpy() for name in ("doc", "better", "better_preference"))
    preference = preferences(unit)[schema.rows_of(doc)]
    order = np.argsort(better >> 32, kind="stable")
    ranks = better[order] >> 32
    bounds = [0, *(np.flatnonzero(np.diff(ranks)) + 1).tolist(), len(ranks)]
    paths = {other["rank"]: other["shingles"] for other in storage.resolved(storage.read_json(Path(unit["work"]) / "units.json"))}
    own = ShingleSets.open(Path(paths[unit["rank"]])) if len(ranks) and unit["document"]["verify"] else None
    for first, last in itertools.pairwise(bounds if len(ranks) else ()):
        for start in range(first, last, CHUNK_PAIRS):
            some = order[start : min(start + CHUNK_PAIRS, last)]
            scores = np.full(len(some), survivors.UNSCORED)
            if own is not None:
                other = ShingleSets.open(Path(paths[int(ranks[first])]))
                left, right = own.places(schema.rows_of(doc[some])), other.places(schema.rows_of(better[some]))
                scores = pair_jaccard(own.offsets, own.shingles, left, other.offsets, other.shingles, right)
                near = scores >= unit["document"]["threshold"]
                some, scores = some[near], scores[near]
            columns = [doc[some], preference[some], better[some], better_preference[some], scores]
            yield pa.table([pa.array(column) for column in columns], schema=survivors.LINKS)
