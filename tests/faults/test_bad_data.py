"""Noise in the token store, where nothing was noise: the loss spikes, the steps are skipped, training goes back and leaves the data out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import storage
from headrace.batches import Order
from headrace.tokens.store import TokenStore
from headrace.train.incidents import incidents
from headrace.train.spikes import left_out

PATIENCE, EVERY = 3, 10
SPIKES = {"window": 32, "patience": PATIENCE, "rewinds": 20}


def spoil(tokens: Path, spec: dict[str, Any], batches: list[int]) -> None:
    """Overwrite the sequences of whole batches with random tokens; neighbours in the stream keep theirs."""
    store = TokenStore.open(tokens)
    order = Order(spec["seed"], {name: store.num_sequences(name, "train") for name in store.sources}, spec["mixture"])
    size, length, generator = spec["train"]["batch"]["global"], store.sequence_length, np.random.default_rng(1)
    for batch in batches:
        for source, index in zip(*order.samples(batch * size, (batch + 1) * size)):
            path = tokens / "tokens" / "train" / f"u{source:05d}.bin"  # one unit a source, by name
            stream = np.memmap(path, dtype=np.uint16, mode="r+")
            stream[index * length + 1 : (index + 1) * length] = generator.integers(1, store.vocab_size, length - 1)
            stream.flush()


def went_through(faults: Any, folder: Path, same: Any, name: str, steps: int, bad: list[int], kill: bool) -> None:
    """A run on a store whose batches from each of `bad` on are noise, held against one on the clean store that leaves the same out."""
    settings = {"steps": steps, "spikes": SPIKES, "checkpoint": {"every": EVERY, "keep": 5}}
    spoilt = faults.specification(folder, f"{name}-spoilt", **settings)
    spoilt["tokens"] = str(folder / f"{name}-tokens")
    shutil.copytree(folder / "tokens", spoilt["tokens"])
    spoil(Path(spoilt["tokens"]), spoilt, [first + more for first in bad for more in range(PATIENCE)])
    run = Path(spoilt["run"])
    if kill:
        group = faults.start(spoilt)
        group.until(lambda: any(line["event"] == "rewind" for line in incidents(run)))
        faults.kill_in_a_step(group, 1)
    faults.finish(spoilt)
    windows = left_out(run)
    gone, passed = set(), 0
    for window in windows:
        gone |= set(range(window.step + passed, window.step + passed + window.batches))
        passed += window.batches
        assert window.batches < EVERY + PATIENCE
    assert gone >= {first + more for first in bad for more in range(PATIENCE)} and len(windows) == len(bad)
    told = incidents(run)
    assert [line["event"] for line in told].count("rewind") == len(bad)
    assert {line["message"].partition(": ")[2] for line in told if line["event"] == "skip"} <= {"loss spike", "gradient spike"}
    clean = faults.specification(folder, f"{name}-clean", **settings)
    storage.write_json(Path(clean["run"]) / "train" / "skipped.json", storage.read_json(run / "train" / "skipped.json"))
    faults.finish(clean)
    assert "rewind" not in {line["event"] for line in incidents(Path(clean["run"]))}
    same(run, Path(clean["run"]))


def test_noise_is_left_out_as_if_it_had_never_been_there(faults: Any, folder: Path, same: Any) -> None:
    went_through(faults, folder, same, "one", 110, [83], kill=True)


@pytest.mark.full
def test_ten_stretches_of_noise(faults: Any, folder: Path, same: Any) -> None:
    faults.write_tokens(folder / "many" / "tokens", 4000)
    bad = [80 + 40 * number + faults.random.randrange(20) for number in range(10)]
    went_through(faults, folder / "many", same, "ten", 420, bad, kill=False)
