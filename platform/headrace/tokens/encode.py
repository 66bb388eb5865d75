"""Kept documents -> tokenizer and packed token store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from headrace import artifact, stage, storage
from headrace.artifact import Artifact, StageError, StageOutput
from headrace.schema import DOCUMENTS
from headrace.split import TRAIN, draw
from headrace.stage import Engine, UnitResult
from headrace.tokens.store import PARTS, StreamWriter, describe
from headrace.tokens.tokenizer import Tokens, batched, cached_tokenizer, end_of_text, read_tokenizer, train_bpe
from headrace.verdicts import kept_rows, unit_inputs

VERSION = 1
BATCH_CHARS = 4 << 20
ROWS = 512  # documents read at a time
SAMPLE_SALT = 0x70CE  # the tokenizer's sample and the split draw from the same hashes, so they must not draw alike


def encode(
    documents: Artifact, verdicts: Sequence[Artifact], split: Artifact, config: Tokens, seed: int, folder: Path, engine: Engine
) -> StageOutput:
    """Train the tokenizer (or copy the given one) and write the store.

    Raises:
        StageError: a part would be empty, so there would be nothing to train on or to score.
    """
    inputs = unit_inputs(documents, [*verdicts, split])
    tokenizer = make_tokenizer(inputs, documents.totals.get("text_bytes", 0), config, seed, folder, engine)
    eos = end_of_text(tokenizer)
    assert eos is not None
    units = [{**unit, "tokenizer": str(folder / "tokenizer.json"), "eos": eos} for unit in inputs]
    records = stage.run_units(encode_unit, units, folder, phase="tokens", engine=engine)
    sources = {unit["id"]: unit["source"] for unit in documents.units}
    vocab_size = tokenizer.get_vocab_size()
    description = describe(records, sources, vocab_size=vocab_size, eos=eos, sequence_length=config.sequence_length)
    _refuse_empty(description)
    storage.write_json(folder / "store.json", description)
    files = [storage.file_entry(folder, folder / name) for name in ("store.json", "tokenizer.json")]
    return StageOutput(records, files, {"vocab_size": vocab_size})


def _refuse_empty(description: dict[str, Any]) -> None:
    for part in PARTS:
        tokens = sum(parts[part]["tokens"] for parts in description["sources"].values())
        if tokens <= description["sequence_length"]:
            found = sum(parts[part]["documents"] for parts in description["sources"].values())
            way_out = "raise split.validation" if part == "validation" else "add sources, or loosen their filters"
            raise StageError(
                f"tokens: the {part} part has {found} documents and {tokens} tokens, fewer than one sequence of "
                f"{description['sequence_length']}; {way_out}, or lower tokens.sequence_length."
            )


def make_tokenizer(inputs: list[dict[str, Any]], text_bytes: int, config: Tokens, seed: int, folder: Path, engine: Engine) -> Tokenizer:
    """The tokenizer at `folder/tokenizer.json`, made if it is not there yet."""
    path = folder / "tokenizer.json"
    if path.is_file():
        return Tokenizer.from_file(str(path))
    if config.tokenizer != "bpe":
        tokenizer = read_tokenizer(Path(config.tokenizer))
    else:
        share = min(1.0, config.sample_bytes / max(1, text_bytes))
        units = [{**unit, "share": share, "seed": seed} for unit in inputs]
        stage.run_units(sample_unit, units, folder, phase="sample", engine=engine)
        tokenizer = train_bpe(_sampled(folder / "work" / "sample"), config.vocab_size)
    storage.write_bytes(path, json.dumps(json.loads(tokenizer.to_str()), indent=1, ensure_ascii=False).encode())
    return Tokenizer.from_file(str(path))


def _sampled(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path, page_checksum_verification=True).iter_batches(ROWS, columns=["text"]):
            yield from batch["text"].to_pylist()


def sample_unit(unit: dict[str, Any], folder: Path) -> UnitResult:
    """Training documents of one unit that fall into the tokenizer's sample, as work/sample/<id>.parquet."""
    parts = _parts(unit)
    sampled = 0
    schema = pa.schema([DOCUMENTS.field("text")])
    with artifact.table_writer(folder / "work" / "sample" / f"{unit['id']}.parquet", schema) as writer:
        for row, batch in _batches(unit):
            numbers = batch["doc"].to_numpy().astype(np.uint64)
            chosen = (parts[row : row + len(numbers)] == TRAIN) & (draw(numbers, unit["seed"] ^ SAMPLE_SALT) < unit["share"])
            writer.write_batch(batch.select(["text"]).filter(pa.array(chosen)))
            sampled += int(chosen.sum())
    return UnitResult(counters={"documents_sampled": sampled})


def encode_unit(unit: dict[str, Any], folder: Path) -> UnitResult:
    """Tokens of one unit's kept documents, a file for each part."""
    tokenizer = cached_tokenizer(unit["tokenizer"])
    parts = _parts(unit)
    writers = {part: StreamWriter(folder, unit["id"], part, tokenizer.get_vocab_size()) for part in PARTS}
    for row, batch in _batches(unit):
        wanted = [(index, text.as_py()) for index, text in enumerate(batch["text"]) if parts[row + index] is not None]
        for rows in batched(wanted, BATCH_CHARS):
            encodings = tokenizer.encode_batch_fast([text for _, text in rows], add_special_tokens=False)
            for (index, text), encoding in zip(rows, encodings, strict=True):
                writers[parts[row + index]].add(batch["doc"][index].as_py(), [*encoding.ids, unit["eos"]], len(text.encode()))
    for writer in writers.values():
        writer.close()
    kept = sum(writer.documents for writer in writers.values())
    counters = {name: value for part, writer in writers.items() for name, value in writer.counters(part).items()}
    counters["tokens"] = sum(writer.tokens for writer in writers.values())
    return UnitResult(kept, kept, counters=counters)


def _parts(unit: dict[str, Any]) -> np.ndarray[Any, Any]:
    """object [rows]: the part of each kept document, None for the others. The split's verdict is the last and names parts, not reasons."""
    *earlier, split = unit["verdicts"]
    parts = artifact.read_table(Path(split), ["reason"])["reason"].to_numpy(zero_copy_only=False).astype(object)
    parts[~kept_rows({**unit, "verdicts": earlier})] = None
    return parts


def _batches(unit: dict[str, Any]) -> Iterator[tuple[int, pa.RecordBatch]]:
    row = 0
    with pq.ParquetFile(unit["documents"], page_checksum_verification=True) as file:
        for batch in file.iter_batches(ROWS, columns=["doc", "text"]):
            yield row, batch
            row += len(batch)
