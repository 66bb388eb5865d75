"""Deduplication against its peers on the same documents, with as many workers, each side's recall and precision beside its speed.

python benchmarks/dedup.py [--json] [--only PEER] [--times N] [--repeats N] [--peers FOLDER]. The corpus is HEADRACE_CORPUS (a folder of
*.jsonl.zst, with truth.jsonl.zst naming the duplicates planted in it), or the text of this machine's own Python where that is not set.
Every peer is installed into an environment of its own below the folder of the peers, with the pins of benchmarks/peers/<peer>.txt.

Stage against stage, start-ups left out; what is counted: our deduplication stage, from documents on disk to verdicts on disk; of
text-dedup its MinHash, clustering and filtering, not its loading and saving; of datatrove its four stages, from JSON Lines to JSON Lines;
of Data-Juicer the operator on a Ray that is warm, from JSON Lines to a dataset in memory. "whole command" is everything, start-up too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import ours
import substrings
from corpora import ciphered, corpus, grown, planted
from environments import DEFAULT, PINS, PeerError, run, run_script
from headrace.dedup.document import DocumentDedup
from headrace.dedup.levels import Dedup
from rows import row, show
from similarity import near_pairs, quality, shingle_sets

WORKERS = 2
BANDS, ROWS, THRESHOLD = 14, 8, 0.75
PEERS = ("text-dedup", "datatrove", "juicer")
TO_FIND = 0.8  # a pair this similar is to be found: where 14 bands of 8 find 92 % and more
REPEATS = 0.7  # a document this similar to another may be removed for it

# As the peers do: whatever shares a band counts as a duplicate. It is still compared, which the peers spare themselves.
UNVERIFIED = Dedup(document=DocumentDedup(verify=False, bands=BANDS, rows=ROWS))
VERIFIED = Dedup(document=DocumentDedup(threshold=THRESHOLD, bands=BANDS, rows=ROWS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--only", choices=[*PEERS, "divsufsort"], help="rows against this peer alone")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side at the corpus; medians are printed")
    parser.add_argument("--times", type=int, default=10, help="one run more at so many times the corpus, by synthesis; 1 leaves it out")
    parser.add_argument("--peers", type=Path, default=DEFAULT, help="folder of the peers' environments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        sources = corpus(folder)
        started = ours.start_ray(WORKERS)
        print(f"Ray started in {started:.1f} s, which is in the whole commands only", file=sys.stderr)
        rows = measured(folder / "once", sources, planted(), arguments.repeats, arguments)
        if arguments.times > 1:
            larger = grown(folder / "larger", sources, arguments.times, ciphered)
            for each in measured(folder / "larger", larger, planted(arguments.times), 1, arguments):
                each.pop("key", None)  # the floors are for the corpus itself
                rows.append({**each, "work": f"{each['work']}, {arguments.times} x the corpus"})
    show("dedup", rows, arguments.json)


def measured(
    folder: Path, sources: Sequence[dict[str, Any]], known: Sequence[tuple[str, str, float]], repeats: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """The rows that were asked for, at one size of the corpus."""
    rows: list[dict[str, Any]] = []
    units = ours.ingest(sources, folder / "ingest", "ray")
    if peers := [peer for peer in PEERS if arguments.only in (None, peer)]:
        rows += near_rows(Documents.prepared(units, known, folder), peers, repeats, arguments.peers)
    if arguments.only in (None, "divsufsort"):
        rows += substrings.rows(units, folder / "substrings", repeats, arguments.peers)
    return rows


@dataclass(frozen=True)
class Documents:
    """The documents that both sides deduplicate, and what is known of them."""

    folder: Path
    units: list[dict[str, Any]]  # ours, ingested
    text_bytes: int
    docs: npt.NDArray[np.int64]  # [N], numbers of the documents: their id in the peers' JSON Lines
    pairs: npt.NDArray[np.int64]  # [P, 2], places of those that truly repeat each other
    similar: npt.NDArray[np.float64]  # [P]
    known: npt.NDArray[np.int64]  # [K, 2], places of the planted pairs that are to be found

    @classmethod
    def prepared(cls, units: list[dict[str, Any]], known: Sequence[tuple[str, str, float]], folder: Path) -> Documents:
        """Write the same documents for the peers below folder/jsonl, and look for what repeats what."""
        text_bytes = ours.export(units, folder / "jsonl")
        docs, ids, texts = ours.read(units, "doc", "id", "text")
        pairs, similar = near_pairs(shingle_sets(texts), REPEATS)
        place = {name: index for index, name in enumerate(ids)}
        both = [(place[one], place[other]) for one, other, score in known if score >= TO_FIND and one in place and other in place]
        return cls(folder, units, text_bytes, np.array(docs), pairs, similar, np.array(both, np.int64).reshape(-1, 2))

    def judged(self, kept: npt.ArrayLike, seen: npt.ArrayLike | None = None) -> dict[str, float]:
        """Recall and precision of a side that kept these documents of those that it looked at, all of them if it says nothing."""
        looked_at = np.ones(len(self.docs), bool) if seen is None else np.isin(self.docs, seen)
        return quality(np.isin(self.docs, kept), looked_at, self.pairs, self.similar, self.known, TO_FIND)


@dataclass
class Side:
    """The runs of one side."""

    seconds: list[float] = field(default_factory=list)  # of the stage
    whole: list[float] = field(default_factory=list)  # of the process
    judged: dict[str, float] = field(default_factory=dict)

    def median(self, kind: str) -> float:
        return statistics.median(getattr(self, kind))


def near_rows(documents: Documents, peers: Sequence[str], repeats: int, environments: Path) -> list[dict[str, Any]]:
    """Near-duplicate removal, both sides in turn; against each peer the stage and the whole, against the first more of ours."""
    variants: dict[str, tuple[Dedup, Any]] = {
        "ray": (VERIFIED, "ray"),
        "alone": (VERIFIED, "local"),
        "unverified": (UNVERIFIED, "ray"),
    }
    mine = {name: Side() for name in (*variants, "whole")}
    theirs = {peer: Side() for peer in peers}
    spec = {
        "inputs": str(documents.folder / "jsonl"),
        "workers": WORKERS,
        "bands": BANDS,
        "rows": ROWS,
        "threshold": THRESHOLD,
        "dedup": VERIFIED.model_dump(),
    }
    for name, (config, engine) in variants.items():  # compiled kernels, imported modules
        ours.deduplicate(documents.units[:2], config, documents.folder / "warm" / name, engine)
    for number in range(repeats):
        for name, (config, engine) in variants.items():
            folder = documents.folder / f"{name}-{number}"
            seconds, _ = ours.deduplicate(documents.units, config, folder, engine)
            mine[name].seconds.append(seconds)
            mine[name].judged = documents.judged(ours.kept(documents.units, folder))
        command = [sys.executable, str(Path(ours.__file__))]
        result = run_script(command, spec, documents.folder / f"whole-{number}", "headrace")
        mine["whole"].whole.append(result["whole"])
        mine["whole"].judged = documents.judged(result["kept"])
        for peer in list(theirs):
            try:
                result = run(peer, environments, spec, documents.folder / f"{peer}-{number}")
            except PeerError as error:
                print(f"left out: {error}", file=sys.stderr)
                del theirs[peer]
                continue
            theirs[peer].seconds.append(result["seconds"])
            theirs[peer].whole.append(result["whole"])
            theirs[peer].judged = documents.judged(result["kept"], result.get("seen"))
            print(f"{peer}: {result['seconds']:.1f} s of {result['whole']:.1f}, {result['parts']}", file=sys.stderr)
    rows = []
    for place, (peer, side) in enumerate(theirs.items()):
        rows.append(_row("near-duplicates", peer, mine["ray"], side, documents, key=peer))
        if place == 0:
            rows.append(_row("near-duplicates, in one process", peer, mine["alone"], side, documents))
            rows.append(_row("near-duplicates, unverified", peer, mine["unverified"], side, documents))
        rows.append(_row("near-duplicates, whole command", peer, mine["whole"], side, documents, kind="whole"))
    return rows


def _row(
    work: str, peer: str, mine: Side, theirs: Side, documents: Documents, kind: str = "seconds", key: str | None = None
) -> dict[str, Any]:
    our_s, their_s = mine.median(kind), theirs.median(kind)
    speeds = [round(documents.text_bytes / 1e6 / seconds, 2) for seconds in (our_s, their_s)]
    recall = "recall_planted" if len(documents.known) else "recall_all"
    both = {name: {"ours": round(mine.judged[name], 4), "theirs": round(theirs.judged[name], 4)} for name in mine.judged}
    told = "; ".join(
        f"{name.replace('_', ' ')} {each['ours']:.3g} against {each['theirs']:.3g}" for name, each in both.items() if name != "removed"
    )
    removed = f"removed {both['removed']['ours']:.0f} against {both['removed']['theirs']:.0f} of {len(documents.docs)}"
    against = f"{version(peer)}; {speeds[0]} against {speeds[1]} MB/s; {told}; {removed}"
    found = mine.judged[recall], theirs.judged[recall]
    return row(work, against, their_s / our_s, our_s, their_s, "s", None, key=key, quality=found, **both)


def version(peer: str) -> str:
    """The peer as its pins name it."""
    return (PINS / f"{peer}.txt").read_text().splitlines()[0].replace("==", " ")


if __name__ == "__main__":
    main()
