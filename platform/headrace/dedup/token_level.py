"""Token level: exact repeated substrings of at least L tokens across the whole corpus, cut out of the documents that repeat them.

Defined: a window is L consecutive tokens of one document, none of them touched by what an earlier level has cut. The occurrences of a
window are ordered by (preference, document number, place). Under `keep` first a token goes iff a window that covers it is not the
first of its content; under none, iff a window that covers it occurs twice. A longer match is the union of its windows, so what goes
are all repeated substrings of at least L tokens, and nothing else: those that overlap themselves, too, and those across files. Of a code
point whose bytes are in several tokens nothing goes unless all of them do.

The document named beside a cut holds the same tokens and comes before, or is the same one; as at the level of documents, it may lose
them itself. A document that loses something and has too few words left is dropped whole, the first of its passages with it.

A second pass looks at what is left of each document with its parts joined, as training will read it, so it also finds passages that a
cut brought together. Its tokens are those of the first encoding; at a joint another encoding of the text that is left may differ.

Source: Lee et al. 2022, arXiv:2107.06499, section 4 (50 tokens; all occurrences go); RefinedWeb cuts, and does not drop, what is found
(Penedo et al. 2023, arXiv:2306.01116, section 3.3). No suffix array: see `fingerprints` and `substrings`.

Equal tokens are equal text where the tokenizer spells it; one that lower-cases or knows unknown tokens finds what is equal to it. How a
passage is cut into tokens depends on the text around it, by a token or two at its ends, so one that has just L tokens by itself may
have fewer in common inside two documents, and is then no repeat; where white space or a line's end bounds it, it has them all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, NonNegativeInt

from headrace import artifact, schema, storage
from headrace.config import Config
from headrace.dedup import sidecars, substrings
from headrace.dedup.cuts import standing_rows
from headrace.dedup.fingerprints import FINGERPRINTS, gram_length, segments, window_hashes
from headrace.dedup.index_rows import preferences_of, with_index
from headrace.dedup.phases import Phases
from headrace.dedup.preference import preferences
from headrace.dedup.substrings import NOWHERE, Keep, place_of, rank_of, tokens_of
from headrace.dedup.token_cuts import cut_tokens, earlier_cuts
from headrace.dedup.token_ids import TokenIds, ids_folder, ids_of
from headrace.dedup.token_offsets import offsets_of
from headrace.stage import UnitResult

VERSION = 1
CHUNK_WINDOWS = 1 << 20  # looked at together; a longer stretch is in parts
CHUNK_SEGMENTS = 1 << 16  # spread into windows together

# Tokens that go: ranges of a file's ids, in order and apart, and a document that holds the same tokens.
RANGES = pa.schema([("start", pa.int64()), ("end", pa.int64()), ("kept", pa.int64())])
# Ranges of a file's ids that are left after the first pass, and where they start among those that are left.
PIECES = pa.schema([("start", pa.int64()), ("end", pa.int64()), ("moved", pa.int64())])

Int64s = npt.NDArray[np.int64]


class TokenDedup(Config):
    """Passages that repeat others, token by token."""

    min_tokens: Annotated[int, Field(ge=2, le=1 << 12)] = 50  # tokens of the shortest repeat that is cut
    keep: Keep = "first"  # of equal passages the first stays, or none
    min_words: NonNegativeInt = 50  # a document that lost something and has fewer words left is dropped whole
    passes: Literal[1, 2] = 1  # 2 looks once more, at what is left: cutting makes new neighbours


def find_tokens(phases: Phases) -> list[dict[str, Any]]:
    """From ids/ and the earlier levels' cuts to token-cuts/ and token-dropped/; the records of the units, which count the tokens.

    The text of documents that lose something is read once more; no token is shuffled.
    """
    settings = phases.units[0]["token"]
    ids = [phases.folder / "ids" / f"{unit['id']}.bin" for unit in phases.units]
    for suffix in ("", "-2")[: settings["passes"]]:
        _find_ranges(phases, settings["keep"], suffix, here=phases.small(ids))
    return phases.run(cut_tokens, "token")


def _find_ranges(phases: Phases, keep: Keep, suffix: str, here: bool) -> None:
    """One pass: leave ranges/ of every documents file. Phases and tables of the second have the suffix -2."""
    again = [suffix] * len(phases.units)
    phases.run(fingerprint_remaining if suffix else fingerprint_standing, f"fingerprints{suffix}", here=here)
    rows = with_index(phases, f"fingerprints{suffix}")
    shared = phases.collect(rows, "fingerprint", functools.partial(substrings.shared_segments, keep=keep), f"shared{suffix}")
    shared = phases.collect_by_file(shared, f"shared{suffix}")
    own_shared = phases.part_of_each(shared)
    phases.run(spread_windows, f"windows{suffix}", here=here, shared=own_shared, suffix=again)
    rows = phases.files(f"windows{suffix}")
    if old := phases.index.units:
        more = {"shared": phases.part_of_each(shared, old), "suffix": [suffix] * len(old), "token": [phases.units[0]["token"]] * len(old)}
        phases.run_index(spread_windows, f"index-windows{suffix}", here=here, **more)
        rows += [phases.work / f"windows{suffix}" / f"{unit['id']}.parquet" for unit in old]
    repeats = phases.collect(rows, "window", functools.partial(substrings.repeated_windows, keep=keep), f"repeats{suffix}")
    own_repeats = phases.part_of_each(phases.collect_by_file(repeats, f"repeats{suffix}"))
    phases.run(verify_ranges, f"ranges{suffix}", here=here, shared=own_shared, repeats=own_repeats, suffix=again)


def fingerprint_standing(unit: dict[str, Any], folder: Path) -> UnitResult:
    """fingerprints/ of one documents file: of the tokens that the earlier levels left."""
    held = TokenIds.open(ids_folder(unit), unit["id"])
    _write_fingerprints(unit, held, *standing_stretches(unit, held), folder / "work", "")
    return UnitResult()


def fingerprint_remaining(unit: dict[str, Any], folder: Path) -> UnitResult:
    """ids-2/, pieces-2/ and fingerprints-2/ of one documents file: of the tokens that the first pass left, each document's joined."""
    held = TokenIds.open(ids_folder(unit), unit["id"])
    ranges = artifact.read_table(Path(unit["work"]) / "ranges" / f"{unit['id']}.parquet")
    start, end = substrings.without(*standing_stretches(unit, held), ranges["start"].to_numpy(), ranges["end"].to_numpy())
    moved = np.cumsum(end - start) - (end - start)
    pieces = pa.table([pa.array(column) for column in (start, end, moved)], schema=PIECES)
    artifact.write_table(pieces, folder / "work" / "pieces-2" / f"{unit['id']}.parquet")
    left = held.pieced(start, end, folder / "work" / "ids-2", unit["id"])
    _write_fingerprints(unit, left, left.start, left.start + left.tokens, folder / "work", "-2")
    return UnitResult()


def standing_stretches(unit: Mapping[str, Any], held: TokenIds) -> tuple[Int64s, Int64s]:
    """Starts and ends of the stretches of tokens of one documents file that the earlier levels left, document by document."""
    rows = np.flatnonzero(standing_rows(unit, "token")[schema.rows_of(held.doc)])
    starts, ends = held.start[rows], held.start[rows] + held.tokens[rows]
    cuts = earlier_cuts(unit)
    cut = rows[np.isin(held.doc[rows], cuts.doc)]
    gone = [np.empty((2, 0), np.int64)]
    for row, offsets in offsets_of(unit, held, cut):
        spans = np.array(cuts.of(int(held.doc[row])), np.int64)
        gone.append(held.start[row] + np.stack(offsets.touched(spans[:, 0], spans[:, 1])))
    touched = np.concatenate(gone, axis=1)
    touched = touched[:, np.argsort(touched[0], kind="stable")]
    return substrings.without(starts, ends, touched[0], touched[1])


def _write_fingerprints(unit: Mapping[str, Any], held: TokenIds, starts: Int64s, ends: Int64s, work: Path, suffix: str) -> None:
    window = unit["token"]["min_tokens"]
    order = preferences(unit)
    rows = sidecars.RowWriter(work / f"fingerprints{suffix}" / f"{unit['id']}.parquet", FINGERPRINTS)
    runs = sidecars.RowWriter(work / f"runs{suffix}" / f"{unit['id']}.parquet", substrings.RUNS)
    for low, high in _chunks(starts, ends, window):
        found = segments(held.ids, low, high, window, gram_length(window))
        preference = order[schema.rows_of(held.doc[held.rows_at(low)])]
        place = place_of(unit["rank"], found.start)
        rows.write(found.fingerprint, found.segment, np.repeat(preference, found.counts), place, found.windows)
        place = place_of(unit["rank"], found.runs[0])
        runs.write(place, found.runs[1], place - found.runs[2])
    rows.close()
    runs.close()


def _chunks(starts: Int64s, ends: Int64s, window: int) -> Iterator[tuple[Int64s, Int64s]]:
    """Stretches a few at a time, the longest in parts that share no window: a segment that goes over such a border becomes two."""
    parts = np.maximum(-(-(ends - starts - window + 1) // CHUNK_WINDOWS), 0)
    number = np.arange(int(parts.sum())) - np.repeat(np.cumsum(parts) - parts, parts)
    starts, ends = np.repeat(starts, parts) + number * CHUNK_WINDOWS, np.repeat(ends, parts)
    ends = np.minimum(ends, starts + CHUNK_WINDOWS + window - 1)
    chunk = np.cumsum(ends - starts) // CHUNK_WINDOWS
    for each in np.split(np.arange(len(starts)), np.flatnonzero(np.diff(chunk)) + 1):
        yield starts[each], ends[each]


def spread_windows(unit: dict[str, Any], folder: Path) -> UnitResult:
    """windows/ of one documents file, or unit of an index: the windows of those of its segments that have yet to be compared."""
    window = unit["token"]["min_tokens"]
    shared = sidecars.rows_of_rank(unit["shared"], unit["rank"])
    shared = shared.filter(pc.equal(shared["compare"], 1))
    starts, windows = tokens_of(shared["place"].to_numpy()), shared["windows"].to_numpy()
    held = ids_of(unit, unit["suffix"])
    order = preferences_of(unit)
    rows = sidecars.RowWriter(folder / "work" / f"windows{unit['suffix']}" / f"{unit['id']}.parquet", substrings.WINDOWS)
    for first in range(0, len(starts), CHUNK_SEGMENTS):
        some = slice(first, first + CHUNK_SEGMENTS)
        hashes, tokens = window_hashes(held.ids, starts[some], windows[some], window)
        preference = order[schema.rows_of(held.doc[held.rows_at(starts[some])])]
        rows.write(hashes, np.repeat(preference, windows[some]), place_of(unit["rank"], tokens))
    rows.close()
    return UnitResult()


def verify_ranges(unit: dict[str, Any], folder: Path) -> UnitResult:
    """ranges/ of one documents file: the tokens that go, compared one by one with those they repeat.

    The ids of two files are mapped at a time, those of this one and those of one that holds the same passages.
    """
    window, suffix = unit["token"]["min_tokens"], unit["suffix"]
    shared = sidecars.rows_of_rank(unit["shared"], unit["rank"])
    shared = shared.filter(pc.not_equal(shared["kept"], NOWHERE))
    repeats = sidecars.rows_of_rank(unit["repeats"], unit["rank"])
    itself = artifact.read_table(Path(unit["work"]) / f"runs{suffix}" / f"{unit['id']}.parquet")
    place, kept = (np.concatenate([table[name].to_numpy() for table in (shared, itself, repeats)]) for name in ("place", "kept"))
    windows = np.concatenate([shared["windows"].to_numpy(), itself["windows"].to_numpy(), np.ones(len(repeats), np.int64)])
    runs = substrings.joined_windows(tokens_of(place), windows, kept, window)
    own = ids_of(unit, suffix)
    listed = storage.resolved(storage.read_json(Path(unit["work"]) / "units.json"))
    others = {other["rank"]: {**other, "work": unit["work"]} for other in listed}
    found = [np.empty((3, 0), np.int64)]
    ranks = rank_of(runs.kept)
    for rank in np.unique(ranks).tolist():
        other = own if rank == unit["rank"] else ids_of(others[rank], suffix)
        same = substrings.verified(runs.chosen(ranks == rank), own.ids, other.ids, window)
        doc = other.doc[other.rows_at(tokens_of(same.kept))]  # an index numbers it as its own run did
        found.append(np.stack([same.start, same.end, schema.rows_of(doc) + schema.first_doc(rank)]))
    every = np.concatenate(found, axis=1)
    start, end, doc = substrings.apart(every[0], every[1], every[2], own.start)
    table = pa.table([pa.array(column) for column in (start, end, doc)], schema=RANGES)
    artifact.write_table(table, folder / "work" / f"ranges{suffix}" / f"{unit['id']}.parquet")
    return UnitResult()
