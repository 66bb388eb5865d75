"""Kept documents -> packed token store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from headrace import stage, storage
from headrace.artifact import Artifact, StageError, StageOutput
from headrace.dedup.token_ids import IDS_KIND, TokenIds
from headrace.stage import Engine, UnitResult
from headrace.text.cuts import remaining
from headrace.text.encoding import batched, cached_tokenizer, encode_texts
from headrace.tokens.store import PARTS, StreamWriter, describe
from headrace.tokens.tokenizer import Tokens, end_of_text
from headrace.tokens.train_tokenizer import TOKENIZER
from headrace.verdicts import cuts_of, parts_of, unit_inputs

VERSION = 1
BATCH_CHARS = 4 << 20
ROWS = 512  # documents read at a time


def encode(
    documents: Artifact,
    verdicts: Sequence[Artifact],
    split: Artifact,
    tokenizer: Artifact,
    held: Artifact | None,
    config: Tokens,
    folder: Path,
    engine: Engine,
) -> StageOutput:
    """Write the store: the documents that all `verdicts` keep, without what they cut, each in the part that `split` gave it.

    Args:
        held: the artifact of a deduplication that has the documents' ids under this tokenizer, so that text is encoded once.

    Raises:
        StageError: a part would be empty, so there would be nothing to train on or to score.
    """
    inputs = unit_inputs(documents, [*verdicts, split])
    storage.write_bytes(folder / TOKENIZER, storage.read_bytes(tokenizer.folder / TOKENIZER))
    read = Tokenizer.from_file(str(storage.local(folder / TOKENIZER)))
    eos = end_of_text(read)
    assert eos is not None
    units = [
        {**unit, "tokenizer": str(folder / TOKENIZER), "eos": eos, "ids": str(held.folder / IDS_KIND) if held else None} for unit in inputs
    ]
    records = stage.run_units(encode_unit, units, folder, phase="tokens", engine=engine)
    sources = {unit["id"]: unit["source"] for unit in documents.units}
    vocab_size = read.get_vocab_size()
    description = describe(records, sources, vocab_size=vocab_size, eos=eos, sequence_length=config.sequence_length)
    _refuse_empty(description)
    storage.write_json(folder / "store.json", description)
    files = [storage.file_entry(folder, folder / name) for name in ("store.json", TOKENIZER)]
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


def encode_unit(unit: dict[str, Any], folder: Path) -> UnitResult:
    """Tokens of one unit's kept documents, a file for each part."""
    tokenizer = cached_tokenizer(str(storage.local(unit["tokenizer"])))
    parts, cuts = parts_of(unit), cuts_of(unit)
    held = TokenIds.open(Path(unit["ids"]), unit["id"]) if unit["ids"] else None
    writers = {part: StreamWriter(folder, unit["id"], part, tokenizer.get_vocab_size()) for part in PARTS}
    for row, batch in _batches(unit):
        wanted = [
            (doc, parts[row + index], text, cuts.of(doc))
            for index, (doc, text) in enumerate(zip(batch["doc"].to_pylist(), batch["text"].to_pylist()))
            if parts[row + index] is not None
        ]
        whole = [held is not None and not gone for *_, gone in wanted]  # its ids are those that deduplication has made
        fresh = [(place, remaining(text, gone)) for place, (_, _, text, gone) in enumerate(wanted) if not whole[place]]
        encoded = {
            place: (ids, len(text.encode()))
            for some in batched(fresh, BATCH_CHARS)
            for (place, text), ids in zip(some, encode_texts(tokenizer, [text for _, text in some]), strict=True)
        }
        for place, (doc, part, text, _) in enumerate(wanted):
            ids, num_bytes = encoded[place] if held is None or not whole[place] else (held.of(doc), len(text.encode()))
            writers[part].add(doc, np.append(ids, ids.dtype.type(unit["eos"])), num_bytes)
    for writer in writers.values():
        writer.close()
    kept = sum(writer.documents for writer in writers.values())
    counters = {name: value for part, writer in writers.items() for name, value in writer.counters(part).items()}
    counters["tokens"] = sum(writer.tokens for writer in writers.values())
    return UnitResult(kept, kept, counters=counters)


def _batches(unit: dict[str, Any]) -> Iterator[tuple[int, pa.RecordBatch]]:
    row = 0
    with pq.ParquetFile(storage.local(unit["documents"]), page_checksum_verification=True) as file:
        for batch in file.iter_batches(ROWS, columns=["doc", "text"]):
            yield row, batch
            row += len(batch)
