"""Repeated windows by a suffix array, as the benchmark counts them, against looking at every window."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

import ours
from headrace.dedup import phases, signatures
from headrace.dedup.token_ids import TokenIds
from headrace.tokens.tokenizer import train_bpe
from substrings import BOTH, joined, repeated, tokens_given

SEPARATOR = 99


def every_window(tokens, window):
    """What `repeated` says, by a dictionary of all windows."""
    gone = np.zeros(len(tokens), bool)
    seen = set()
    for start in range(len(tokens) - window + 1):
        content = tuple(tokens[start : start + window].tolist())
        if SEPARATOR in content:
            continue
        if content in seen:
            gone[start : start + window] = True
        seen.add(content)
    return gone


@pytest.mark.parametrize(("seed", "kinds"), [(0, 2), (1, 3), (2, 5), (3, 1)])
def test_a_suffix_array_finds_what_all_windows_do(seed, kinds):
    draw = np.random.default_rng(seed)
    tokens = draw.integers(0, kinds, 400).astype(np.uint16)
    tokens[draw.integers(0, 400, 12)] = SEPARATOR
    tokens[-1] = SEPARATOR
    tokens[200:240] = tokens[20:60]
    suffixes = np.array(sorted(range(len(tokens)), key=lambda start: tokens[start:].tolist()))
    for window in (2, 7, 20):
        found = repeated(tokens, suffixes, window)
        assert found.tolist() == every_window(tokens, window).tolist()
    assert found.any()


def test_documents_are_joined_with_a_separator_behind_each():
    empty = np.zeros(0, bool)
    first = TokenIds(np.array([1, 2, 3], np.uint16), np.arange(2), np.array([0, 1]), np.array([1, 2]), empty)
    second = TokenIds(np.array([4], np.uint16), np.arange(2), np.array([0, 0]), np.array([0, 1]), empty)
    tokens, places = joined([first, second], SEPARATOR)
    assert tokens.tolist() == [1, 99, 2, 3, 99, 99, 4, 99]
    assert [each.tolist() for each in places] == [[0, 2], [5, 6]]


@pytest.mark.parametrize("threads", [1, 2])
def test_given_tokens_are_taken_as_they_are_and_cut_alike(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(phases, "data_cpus_here", lambda: threads)  # as on a node of so many; no Ray is asked, so little work is done here
    draw = random.Random(0)
    passage = " ".join(draw.choice(("mill", "river", "wheel", "grain")) for _ in range(200))
    sources = []  # a unit each
    for number in range(12):
        text = " ".join(str(draw.random()) for _ in range(40))
        path = tmp_path / f"{number:02}.jsonl"
        path.write_text(json.dumps({"text": f"{text} {passage} {text[::-1]}"}) + "\n")
        sources.append({"name": path.stem, "kind": "prose", "path": str(path), "filters": []})
    units = ours.ingest(sources, tmp_path / "ingest", "local")
    tokenizer = tmp_path / "tokenizer.json"
    train_bpe(ours.read(units, "text")[0], 300).save(str(tokenizer))
    _, encoded = ours.deduplicate(units, BOTH, tmp_path / "encoded", "local", tokenizer)
    ids = tmp_path / "encoded" / "ids"
    signer = signatures.IdsSigner
    with tokens_given():
        _, given = ours.deduplicate([{**unit, "given": str(ids)} for unit in units], BOTH, tmp_path / "given", "ray", tokenizer)
    assert signatures.IdsSigner is signer
    assert len(units) == 12 and given.counters == encoded.counters
    for unit in units:
        assert (tmp_path / "given" / "ids" / f"{unit['id']}.bin").samefile(ids / f"{unit['id']}.bin")
        cuts = [(tmp_path / run / "removed" / f"{unit['id']}.parquet").read_bytes() for run in ("encoded", "given")]
        assert cuts[0] == cuts[1]
