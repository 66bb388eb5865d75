"""An index of a run's documents: what a later run needs to remove from a new crawl what repeats the old, without the old text.

`dedup.index: {write: true}` leaves index/ in the stage's artifact; `{read: [RUN, ...]}` names such runs (or their dedup artifacts), the
oldest first. Their documents come before all new ones, whatever the priorities: of the new documents those go, and for the sake of
those old ones, that would if all crawls were deduplicated together with the old preferred, by either rule; and of those that stay the
sentences and passages that would. What became of old documents is settled, though, where together they would fare worse: of two old
groups that a new document links, each keeps its document under `components`, so what both say counts below; what `keep: none` leaves
nobody, an old document that had it alone still has; and a bucket that only new documents make large (`candidates.LARGE_BUCKET`) was
compared more widely when it was small.

An index holds, for each documents file of its run that has documents:

    exact/, bands/, spans/, fingerprints/   the rows that the levels shuffle, as far as the levels are on (TABLES)
    shingles/                               the shingle sets of all its documents that have bands, if candidates are verified
    tokens/                                 the token ids that passages are verified by; those of a second pass in tokens-2/
    names/                                  the `id` of each row, null where the document is no part of the index

and for all of them together groups.parquet (`survivors.GROUPS`) and index.json. Documents are those that reach deduplication and are no
exact copy of another; near-duplicates that their own run removed are among them, since under `dominated` they remove others still.

A run that reads and writes leaves an index that is whole by itself: it holds what it read (hard links where the disk allows), then what
is new. So crawls form a chain in which only the last run is needed, and the order of documents is the order of the crawls. An index
that several of those read hold is taken once.

In a run, the documents of an index have numbers from `survivors.FIRST_OF_INDEX` on, a range for each file in their order, and negative
preferences; in the files they have the numbers of the run that wrote them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace import schema, storage
from headrace.artifact import Artifact
from headrace.config import Config, ConfigError
from headrace.dedup import exact
from headrace.dedup.preference import QUALITY_BITS
from headrace.dedup.signatures import SEED
from headrace.dedup.survivors import FIRST_OF_INDEX

VERSION = 2  # of the files, and of the hashes in them
# Kind of table that a level shuffles: the column that its rows are brought together by.
TABLES = {"exact": "high", "bands": "key", "spans": "hash", "fingerprints": "fingerprint", "fingerprints-2": "fingerprint"}
FIRST_RANK = schema.file_rank(FIRST_OF_INDEX)
LOWEST = -(1 << 31)
MAX_CLASSES = 1 << (31 - QUALITY_BITS)


class IndexConfig(Config):
    """Documents of earlier runs that new ones must not repeat."""

    read: tuple[str, ...] = ()  # runs, or their dedup artifacts, the oldest first: folders below which there is an index
    write: bool = False  # keep what a later run needs to read this one


@dataclass(frozen=True)
class Index:
    """Documents of earlier runs, as a run that reads them sees them."""

    # {"id", "rank": in this run, "shift": what turns a preference of its files into one of this run, "files": {kind: path}, and as in
    # index.json "origin": [fingerprint, unit], "priority_rank", "ranked"}, in the order of their documents.
    units: Sequence[dict[str, Any]] = ()
    groups: Sequence[dict[str, Any]] = ()  # {"path", "ranks": {rank in the file: rank in this run}}, a table for each index


def signature_settings(document: Mapping[str, Any], **levels: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same in two runs for the documents of one to be comparable with those of the other.

    Args:
        document: the settings of the document level.
        levels: by the names of those below it that are on, what of them must be the same.
    """
    return {
        "version": VERSION,
        "bands": document["bands"],
        "rows": document["rows"],
        "shingle": dict(document["shingle"]),
        "seed": SEED,
        "normalisation": exact.NORMALISATION,
        "unicode": unicodedata.unidata_version,
        **{level: dict(settings) for level, settings in levels.items()},
    }


def artifact_of(path: str) -> Artifact:
    """The dedup artifact that `path` names: its folder, or that of its run.

    Raises:
        ConfigError: there is none, or it has no index.
    """
    place = f"dedup.index.read = {path!r}"
    folder = storage.folder(path)
    if storage.present(folder / "data" / "current.json"):
        folder = folder / "data" / "dedup" / str(storage.read_json(folder / "data" / "current.json").get("dedup"))
    try:
        found = Artifact.open(folder)
    except FileNotFoundError:
        raise ConfigError(f"{place}: no finished deduplication there; give a run's folder, or that of its dedup artifact.") from None
    if not storage.present(folder / "index" / "index.json"):
        raise ConfigError(f"{place}: its deduplication kept no index; set dedup.index.write=true there and run it again.")
    if breaches := found.breaches():
        raise ConfigError(f"{place}: {breaches[0]}; run it again.")
    return found


def fingerprints(paths: Sequence[str]) -> list[str]:
    """Names of the artifacts that are read.

    Raises:
        ConfigError: one of them is absent or has no index.
    """
    return [artifact_of(path).fingerprint for path in paths]


def opened(paths: Sequence[str], settings: Mapping[str, Any], verify: bool) -> Index:
    """The index of all these runs together.

    Args:
        paths: runs or their dedup artifacts, the oldest first.
        settings: `signature_settings` of the run that reads.
        verify: whether it compares shingle sets.

    Raises:
        ConfigError: an index is absent or was made with other settings; both values are named.
    """
    units: list[dict[str, Any]] = []
    groups = []
    places: dict[tuple[str, str], int] = {}
    for path in paths:
        found = artifact_of(path)
        content = storage.read_json(found.folder / "index" / "index.json")
        _check(path, content, settings, verify)
        ranks = {}
        for number, unit in enumerate(content["units"]):
            fingerprint, name = unit["origin"] or (found.fingerprint, unit["id"])
            if (fingerprint, name) not in places:
                places[fingerprint, name] = len(units)
                files = {kind: str(found.folder / file) for kind, file in unit["files"].items()}
                units.append({**unit, "origin": [fingerprint, name], "files": files})
            ranks[str(FIRST_RANK + number)] = FIRST_RANK + places[fingerprint, name]
        groups.append({"path": str(found.folder / "index" / "groups.parquet"), "ranks": ranks})
    numbered = [_numbered(unit, place, of_class) for place, (unit, of_class) in enumerate(zip(units, _classes(units)))]
    return Index(numbered, groups)


def _numbered(unit: Mapping[str, Any], place: int, of_class: int) -> dict[str, Any]:
    shift = LOWEST + ((of_class - unit["priority_rank"]) << QUALITY_BITS)
    return {**unit, "id": f"index-{place:05d}", "rank": FIRST_RANK + place, "shift": shift}


def _classes(units: Sequence[Mapping[str, Any]]) -> list[int]:
    """Class of each unit, ascending: what its documents' quality is compared within. Without quality the numbers say it all."""
    classes: list[int] = []
    before: Mapping[str, Any] | None = None
    for unit in units:
        apart = before is not None and [unit["origin"][0], unit["priority_rank"]] != [before["origin"][0], before["priority_rank"]]
        classes.append((classes[-1] if classes else 0) + (apart and (unit["ranked"] or (before or unit)["ranked"])))
        before = unit
    if classes and classes[-1] >= MAX_CLASSES:
        raise ConfigError(
            f"dedup.index.read: {classes[-1] + 1} runs and priorities with a quality; {MAX_CLASSES} are the most, so deduplicate some of "
            "these runs together anew."
        )
    return classes


def _check(path: str, content: Mapping[str, Any], ours: Mapping[str, Any], verify: bool) -> None:
    place = f"dedup.index.read = {path!r}"
    wrong = [
        f"{place}: made with {key} = {theirs!r}, this run has {value!r}; use the same, or make the index again."
        for key, value in ours.items()
        if (theirs := content["settings"].get(key)) != value
    ]
    if verify and not content["verify"]:
        wrong.append(f"{place}: made with verify = False, so it holds no shingle sets; set dedup.document.verify=false here, too.")
    if wrong:
        raise ConfigError("\n".join(wrong))
