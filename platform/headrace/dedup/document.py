"""Document level: exact duplicates by hash, near-duplicates by MinHash LSH, every candidate verified before anything is removed.

Defined: words are runs of `\\w` of the lower-cased text, two documents are near-duplicates when the sets of their five-word shingles have
a Jaccard similarity of at least the threshold. Documents under five words have no shingles and take part in exact deduplication
only. Of duplicates the first by (preference, document number) is preferred; the order in which anything arrives plays no part. Texts
that differ in white space or in Unicode form (NFC or not) alone are exact copies; such that differ in case or punctuation are not,
but have equal words, so with five of them they are near-duplicates of similarity 1. Words are not normalised: an accented letter
that is written with a combining mark is another word than the composed one.

`presets` has other shingles, bands and bounds by the name of who published them, `survivors` the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from headrace.config import Config
from headrace.dedup import candidates, exact, signatures, survivors, verify
from headrace.dedup.index_rows import known_groups, with_index
from headrace.dedup.phases import Phases
from headrace.dedup.presets import PRESETS, PresetName, Shingle, with_preset

VERSION = 2
DEFAULT = PRESETS["headrace"]


class DocumentDedup(Config):
    """Whole documents that repeat others. The default bands are FineWeb's (Penedo et al. 2024, arXiv:2406.17557, section 3.4)."""

    preset: PresetName = "headrace"  # gives the five settings below, as far as they are not given
    shingle: Shingle = Shingle.model_validate(DEFAULT["shingle"])
    bands: PositiveInt = DEFAULT["bands"]
    rows: PositiveInt = DEFAULT["rows"]  # MinHash values a band; documents meet that agree in all rows of a band
    threshold: Annotated[float, Field(gt=0, le=1)] = DEFAULT["threshold"]  # Jaccard similarity of the sets of shingles, inclusive
    verify: bool = DEFAULT["verify"]  # false: every pair that shares a band is taken for near-duplicates, whatever the threshold
    rule: Literal["dominated", "components"] = "dominated"

    @model_validator(mode="before")
    @classmethod
    def preset_first(cls, values: Any) -> Any:
        return with_preset(values) if isinstance(values, Mapping) else values


def find_documents(phases: Phases) -> tuple[list[dict[str, Any]], list[Path]]:
    """From exact/ and signatures/ to document-dropped/ and groups/; the records of the units, which count the pairs, and copies by file.

    Text is read once more, the shingles of the candidates, and is never shuffled.
    """
    settings, indexed = phases.units[0]["document"], phases.units[0]["indexed"]
    copies = phases.collect(with_index(phases, "exact"), "high", exact.removed_copies, "copies")
    copies = phases.collect_by_file(copies, "copies")
    own_copies = phases.part_of_each(copies)
    phases.run(signatures.spread_bands, "bands", here=phases.small(phases.files("signatures")), copies=own_copies)
    pairs = phases.collect(with_index(phases, "bands"), "key", candidates.bucket_pairs, "candidates")
    few, none = phases.small(pairs), not any(map(candidates.has_rows, pairs))
    pairs = phases.collect_by_file(pairs, "pairs")
    own_pairs = phases.part_of_each(pairs)
    if settings["verify"]:
        phases.run(verify.write_shingle_sets, "shingles", here=none and not indexed, pairs=own_pairs)
    verified = phases.run(verify.verify_pairs, "verify", here=few, pairs=own_pairs)
    links = phases.files("links")
    phases.run_one(
        survivors.link_groups,
        "groups",
        here=phases.small([*links, *copies]),
        links=[str(path) for path in links],
        copies=[str(path) for path in copies],
        index_groups=known_groups(phases),
        hashes={
            **{str(unit["rank"]): str(path) for unit, path in zip(phases.units, phases.files("exact"))},
            **{str(unit["rank"]): unit["files"]["exact"] for unit in phases.index.units},
        },
        sources={str(unit["rank"]): unit["source"] for unit in phases.units},
    )
    phases.run(survivors.drop_repeats, "document", here=phases.small([*phases.files("edges"), *links, *copies]), copies=own_copies)
    return verified, copies
