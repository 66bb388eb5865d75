"""The `benchmarks` suite: the evaluation sets of `decontaminate`, as text, all items beside clean and contaminated ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from headrace import storage
from headrace.artifact import Artifact, read_table
from headrace.evaluate.config import BENCHMARKS
from headrace.evaluate.excerpts import token_characters
from headrace.evaluate.load import LoadedModel, load_checkpoint
from headrace.evaluate.metrics import METRICS, row_of
from headrace.evaluate.result import publish
from headrace.evaluate.scoring import score_ids

ITEM_TOKENS = 1024  # of an item; what is longer is scored by its beginning

DEFINITION = (
    "Scored is the text of an item, its fields a line each, by its tokens but the first, at most 1,024: how well the model predicts the "
    "set's text, not how well it answers. Contaminated are items that decontamination found in the corpus before it removed anything; "
    "what it removed by its rules no checkpoint was trained on. Bits per byte = nats / (ln 2 x UTF-8 bytes of the scored tokens). `all` "
    "are the first items in the order of a hash of set and row, as many as the limit; clean and contaminated ones are the first of their "
    "kind in the same order, so that few contaminated items are not lost among many."
)


@dataclass(frozen=True)
class Chosen:
    """Items of the evaluation sets that are scored.

    benchmark, text: of each item. whole, contaminated: bool [N], whether it is one of the first of its set, and of which kind.
    """

    benchmark: list[str]
    text: list[str]
    whole: npt.NDArray[np.bool_]
    contaminated: npt.NDArray[np.bool_]

    def parts(self) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
        """(benchmark, "all" | "clean" | "contaminated", items of it: bool [N]), those without an item left out."""
        named = np.array(self.benchmark)
        for name in dict.fromkeys(self.benchmark):
            of = named == name
            for part, chosen in (("all", self.whole), ("clean", ~self.contaminated), ("contaminated", self.contaminated)):
                if (of & chosen).any():
                    yield name, part, of & chosen


def score_benchmarks(checkpoint: Path, decontaminated: Artifact, items: int, out: Path) -> dict[str, Any]:
    """Score a committed checkpoint on the evaluation sets and publish the result.

    Args:
        checkpoint: a canonical checkpoint folder.
        decontaminated: the `decontaminate` artifact, whose table of items says which were found in the corpus.
        items: at most as many of each kind of each set.
        out: the JSON file to publish, RUN/eval/step-XXXXXXXX/benchmarks.json.

    Returns:
        what the file holds. "benchmarks": [{"name", "items", "contaminated", "hit_rate"}] of whole sets; "metrics": rows as in the `fast`
        suite's result, the set as "source", with "items": "all" | "clean" | "contaminated".
    """
    started = time.monotonic()
    loaded = load_checkpoint(checkpoint)
    table = read_table(decontaminated.folder / "items" / "all.parquet", ["benchmark", "row", "contaminated", "text"]).to_pydict()
    chosen = choose_items(table, items)
    ids, num_bytes = encode(loaded, chosen.text)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scored = np.array([len(each) >= 2 for each in ids], dtype=bool)
    texts = [each for each in ids if len(each) >= 2]
    scores = score_ids(loaded.model.to(device), texts, loaded.eos, loaded.config.sequence_length, loaded.config.vocab_size)
    columns = dict(zip(("nats", "correct"), scores, strict=True))
    columns |= {"tokens": np.array([len(each) - 1 for each in texts], dtype=np.int64), "num_bytes": num_bytes[scored]}
    found = {
        "suite": BENCHMARKS,
        "checkpoint": checkpoint.name,
        "step": int(loaded.manifest["state"]["step"]),
        "checkpoint_manifest_sha256": storage.file_entry(checkpoint, checkpoint / "manifest.json")["sha256"],
        "decontaminate_fingerprint": decontaminated.fingerprint,
        "benchmark_items": items,
        "benchmarks": hit_rates(table),
        "metrics": _rows(chosen, scored, columns),
        "scored_tokens": int(columns["tokens"].sum()),
        "bytes": int(columns["num_bytes"].sum()),
        "n_documents": len(texts),
    }
    return publish(out, found, DEFINITION, started)


def choose_items(table: dict[str, list[Any]], items: int) -> Chosen:
    """The items to score of a table of all: by set, then in the order of a hash of set and row, whatever else is in the table."""
    order = sorted(range(len(table["row"])), key=lambda number: _draw(table["benchmark"][number], table["row"][number]))
    taken: dict[tuple[str, bool | None], int] = {}
    chosen: list[tuple[int, bool]] = []
    for number in order:
        name, contaminated = table["benchmark"][number], table["contaminated"][number]
        before = taken.get((name, None), 0), taken.get((name, contaminated), 0)
        if min(before) < items:  # one of the first of all is one of the first of its kind
            chosen.append((number, before[0] < items))
        taken[name, None], taken[name, contaminated] = before[0] + 1, before[1] + 1
    names = list(dict.fromkeys(table["benchmark"]))
    chosen.sort(key=lambda pair: names.index(table["benchmark"][pair[0]]))
    return Chosen(
        [table["benchmark"][number] for number, _ in chosen],
        [table["text"][number] for number, _ in chosen],
        np.array([whole for _, whole in chosen], dtype=bool),
        np.array([table["contaminated"][number] for number, _ in chosen], dtype=bool),
    )


def _draw(benchmark: str, row: int) -> int:
    return xxhash.xxh3_64_intdigest(f"{benchmark}#{row}".encode())


def encode(loaded: LoadedModel, texts: list[str]) -> tuple[list[npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
    """Tokens of the beginning of each text, and the bytes of those that are scored: exact where the tokenizer is byte-level."""
    characters = token_characters(loaded.tokenizer, loaded.config.vocab_size)
    found, num_bytes = [], np.zeros(len(texts), dtype=np.int64)
    for row, encoding in enumerate(loaded.tokenizer.encode_batch(texts, add_special_tokens=False)):
        ids = np.array(encoding.ids, dtype=np.int64)
        written = characters[ids]
        whole = max(1, int(written.sum()))
        num_bytes[row] = (len(texts[row].encode()) * int(written[1:ITEM_TOKENS].sum()) + whole // 2) // whole
        found.append(ids[:ITEM_TOKENS])
    return found, num_bytes


def hit_rates(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Items of each set, and how many of them the corpus held."""
    found: dict[str, dict[str, Any]] = {}
    for name, contaminated in zip(table["benchmark"], table["contaminated"], strict=True):
        row = found.setdefault(name, {"name": name, "items": 0, "contaminated": 0})
        row["items"] += 1
        row["contaminated"] += contaminated
    return [{**row, "hit_rate": row["contaminated"] / row["items"]} for row in found.values()]


def _rows(chosen: Chosen, scored: npt.NDArray[np.bool_], columns: dict[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    rows = []
    for name, part, of in chosen.parts():
        here = of[scored]
        if not here.any():
            continue
        for metric in METRICS:
            rows.append(row_of(metric, name, {key: column[here] for key, column in columns.items()}, items=part))
    return rows
