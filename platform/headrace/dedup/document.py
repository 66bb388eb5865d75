"""Document level: exact duplicates by hash, near-duplicates by MinHash LSH, every candidate verified before anything is removed.

Defined: words are runs of `\\w` of the lower-cased text, two documents are near-duplicates when the sets of their five-word shingles have
a Jaccard similarity of at least the threshold. Documents under five words have no shingles and take part in exact deduplication
only. Of duplicates the first by (preference, document number) is preferred; the order in which anything arrives plays no part.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from headrace.config import Config
from headrace.dedup import candidates, exact, signatures, survivors, verify
from headrace.dedup.phases import Phases

VERSION = 1


class DocumentDedup(Config):
    """Whole documents that repeat others. The defaults are FineWeb's bands (Penedo et al. 2024, arXiv:2406.17557, section 3.4)."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.75  # Jaccard similarity of five-word shingle sets, inclusive
    bands: PositiveInt = 14
    rows: PositiveInt = 8  # MinHash values a band; documents meet that agree in all rows of a band
    rule: Literal["dominated"] = "dominated"  # drop a document that has a verified near-duplicate before it


def find_documents(phases: Phases) -> list[dict[str, Any]]:
    """From exact/ and signatures/ to document-dropped/ and groups/; the records of the units, which count the pairs.

    Text is read once more, the shingles of the candidates, and is never shuffled.
    """
    copies = phases.collect(phases.files("exact"), "high", exact.removed_copies, "copies")
    copies = phases.collect(copies, "rank", candidates.distinct, "copies-by-file")
    own_copies = phases.part_of_each(copies)
    phases.run(signatures.spread_bands, "bands", copies=own_copies)
    pairs = phases.collect(phases.files("bands"), "key", candidates.bucket_pairs, "candidates")
    pairs = phases.collect(pairs, "rank", candidates.distinct, "pairs-by-file")
    own_pairs = phases.part_of_each(pairs)
    phases.run(verify.write_shingle_sets, "shingles", pairs=own_pairs)
    verified = phases.run(verify.verify_pairs, "verify", pairs=own_pairs)
    links = [str(path) for path in phases.files("links")]
    phases.run_one(survivors.link_groups, "groups", links=links, copies=[str(path) for path in copies])
    phases.run(survivors.drop_repeats, "document", copies=own_copies)
    return verified
