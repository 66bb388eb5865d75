"""The levels of sentences and tokens together, against a suffix array of the same tokens and nothing around it.

The tokens are given on either side: ours are taken from a run before, so that encoding is in neither time; reading the text for its
sentences, comparing, and writing what is cut are in ours. Of pydivsufsort only the sorting of the suffixes is counted; in that array the
repeats would still have to be looked for. Here they are, to check that the level of tokens finds them all and no others.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from numba import njit

import ours
from environments import PINS, PeerError, run
from headrace import artifact
from headrace.dedup import signatures
from headrace.dedup.levels import Dedup
from headrace.dedup.sentence import SentenceDedup
from headrace.dedup.token_ids import TokenIds
from headrace.dedup.token_level import TokenDedup
from headrace.stage import Engine, UnitResult
from headrace.tokens.tokenizer import train_bpe
from rows import row

VOCABULARY = 8_192
SAMPLE_BYTES = 50_000_000  # of text that the tokenizer is trained on

Int64s = npt.NDArray[np.int64]

BOTH = Dedup(document=None, sentence=SentenceDedup(), token=TokenDedup())
TOKENS = Dedup(document=None, token=TokenDedup())

_sign = signatures.sign


def rows(units: Sequence[dict[str, Any]], folder: Path, repeats: int, environments: Path) -> list[dict[str, Any]]:
    """Both levels, and that of tokens alone, against the suffix array."""
    folder.mkdir(parents=True)
    tokenizer = train_bpe(_sampled(units), VOCABULARY)
    tokenizer.save(str(folder / "tokenizer.json"))
    encoding_s, _ = ours.deduplicate(units, BOTH, folder / "encoded", "ray", folder / "tokenizer.json")
    held = [TokenIds.open(folder / "encoded" / "ids", unit["id"]) for unit in units]
    tokens, places = joined(held, tokenizer.get_vocab_size())
    np.save(folder / "tokens.npy", tokens)
    variants: dict[str, tuple[Dedup, Engine]] = {
        "sentences and repeated tokens": (BOTH, "ray"),
        "sentences and repeated tokens, in one process": (BOTH, "local"),
        "repeated tokens": (TOKENS, "ray"),
    }
    given = [{**unit, "given": str(folder / "encoded" / "ids")} for unit in units]
    ours.deduplicate(units[:1], BOTH, folder / "warm", "local", folder / "tokenizer.json")  # compiled kernels; Ray's workers have them
    mine: dict[str, list[float]] = {name: [] for name in variants}
    theirs: list[float] = []
    shuffled: dict[str, Any] = {}
    for number in range(repeats):
        for name, (config, engine) in variants.items():
            place = folder / f"{name}-{number}".replace(" ", "-")
            with tokens_given():
                seconds, output = ours.deduplicate(given, config, place, engine, folder / "tokenizer.json")
            mine[name].append(seconds)
            shuffled[name] = {counter: round(count / len(tokens), 4) for counter, count in output.counters.items()}
        try:
            theirs.append(
                run("divsufsort", environments, {"tokens": str(folder / "tokens.npy")}, folder / f"divsufsort-{number}")["seconds"]
            )
        except PeerError as error:
            print(f"left out: {error}", file=sys.stderr)
            return []
    window = BOTH.token.min_tokens if BOTH.token else 0
    suffixes = np.load(folder / f"divsufsort-{repeats - 1}" / "suffixes.npy")
    expected = repeated(tokens, suffixes, window)
    found = cut(folder / f"repeated-tokens-{repeats - 1}", units, places, len(tokens))
    equal = bool(np.array_equal(expected, found))
    made = []
    for name, times in mine.items():
        our_s, their_s = statistics.median(times), statistics.median(theirs)
        against = (
            f"{(PINS / 'divsufsort.txt').read_text().split()[0].replace('==', ' ')}; {len(tokens) / our_s / 1e6:.2f} against "
            f"{len(tokens) / their_s / 1e6:.2f} M tokens/s; encoding in the same run {encoding_s:.1f} s in all; tokens in repeats of "
            f"{window} and more: {found.sum()} of {len(tokens)}, {expected.sum()} by the suffix array"
        )
        key = "divsufsort" if name == "sentences and repeated tokens, in one process" else None  # as the suffix array is
        made.append(row(name, against, their_s / our_s, our_s, their_s, "s", equal, key=key, shuffled_bytes_per_token=shuffled[name]))
    return made


@contextlib.contextmanager
def tokens_given() -> Iterator[None]:
    """Inside, deduplication takes the token ids of units from their "given" folder instead of encoding their texts."""
    with mock.patch.object(signatures, "sign", sign_given), mock.patch.object(signatures, "IdsSigner", GivenIds):
        yield


def sign_given(unit: dict[str, Any], folder: Path) -> UnitResult:
    """`signatures.sign`, the ids given; a function of a module, so that Ray's workers, who have not entered `tokens_given`, find it."""
    if signatures.IdsSigner is GivenIds:  # in the process that has, where threads may be at several units
        return _sign(unit, folder)
    with mock.patch.object(signatures, "IdsSigner", GivenIds):
        return _sign(unit, folder)


class GivenIds:
    """In place of `IdsSigner`: the ids of a run before."""

    def __init__(self, unit: dict[str, Any], folder: Path) -> None:
        (folder / "ids").mkdir(parents=True, exist_ok=True)  # of a few units that are taken together
        for name in (f"{unit['id']}.bin", f"{unit['id']}.parquet"):
            os.link(Path(unit["given"]) / name, folder / "ids" / name)
        self.counters = {
            "tokens_encoded": int(artifact.read_table(folder / "ids" / f"{unit['id']}.parquet", ["tokens"])["tokens"].to_numpy().sum())
        }

    def add(self, docs: Int64s, texts: list[str]) -> None:
        """They are there already."""

    def close(self) -> None:
        """As `add`."""


def _sampled(units: Sequence[dict[str, Any]]) -> list[str]:
    texts: list[str] = ours.read(units, "text")[0]
    return texts[:: -(-sum(map(len, texts)) // SAMPLE_BYTES)]


def joined(held: Sequence[TokenIds], separator: int) -> tuple[npt.NDArray[np.uint16], list[Int64s]]:
    """All documents' tokens in one array, a token that is no other's behind each; and where each file's documents start in it."""
    parts, places = [], []
    total = 0
    for file in held:
        start = file.start + np.arange(len(file.start)) + total
        held_here = np.full(int(file.tokens.sum()) + len(file.tokens), separator, np.uint16)
        inside = np.ones(len(held_here), bool)
        inside[np.cumsum(file.tokens + 1) - 1] = False
        held_here[inside] = file.ids
        parts.append(held_here)
        places.append(start)
        total += len(held_here)
    return np.concatenate(parts), places


def cut(folder: Path, units: Sequence[dict[str, Any]], places: Sequence[Int64s], size: int) -> npt.NDArray[np.bool_]:
    """bool [size]: the tokens, in one array, that the level of tokens cuts in this run."""
    gone = np.zeros(size, bool)
    for unit, starts in zip(units, places):
        held = TokenIds.open(folder / "ids", unit["id"])
        ranges = artifact.read_table(folder / "work" / "ranges" / f"{unit['id']}.parquet")
        start, end = ranges["start"].to_numpy(), ranges["end"].to_numpy()
        moved = (starts - held.start)[held.rows_at(start)]
        for low, high in zip((start + moved).tolist(), (end + moved).tolist()):
            gone[low:high] = True
    return gone


def repeated(tokens: npt.NDArray[np.uint16], suffixes: Int64s, window: int) -> npt.NDArray[np.bool_]:
    """bool [T]: the tokens that some window covers whose content stands further in front, too, by the suffix array.

    Longest common prefixes as in Kasai et al. 2001, "Linear-time longest-common-prefix computation in suffix arrays and its applications",
    cut off at `window`. The last entry of the vocabulary, which separates documents, is in no window.
    """
    return _repeated(tokens, suffixes.astype(np.int64), window, tokens.max())


@njit(cache=True)
def _repeated(tokens: Any, suffixes: Any, window: int, separator: Any) -> Any:
    size = len(tokens)
    before = np.full(size, -1, np.int64)  # of each suffix the one before it in the array
    for place in range(1, size):
        before[suffixes[place]] = suffixes[place - 1]
    shares = np.zeros(size, np.bool_)  # `window` tokens or more with the one before
    common = 0
    for start in range(size):
        other = before[start]
        if other < 0:
            common = 0
            continue
        while start + common < size and other + common < size and tokens[start + common] == tokens[other + common]:
            common += 1
        shares[start] = common >= window
        common = max(0, common - 1)
    later = np.zeros(size, np.bool_)  # windows that are not the first of their content
    opening = 0
    while opening < size:
        closing = opening + 1
        first = suffixes[opening]
        while closing < size and shares[suffixes[closing]]:
            first = min(first, suffixes[closing])
            closing += 1
        if closing > opening + 1:
            for place in range(opening, closing):
                later[suffixes[place]] = suffixes[place] != first
        opening = closing
    gone = np.zeros(size, np.bool_)
    reach = 0
    border = -1  # the next separator
    for start in range(size):
        if border < start:
            border = start
            while border < size and tokens[border] != separator:
                border += 1
        if later[start] and start + window <= border:
            reach = start + window
        gone[start] = start < reach
    return gone
