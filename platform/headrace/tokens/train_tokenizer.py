"""The run's tokenizer as a stage of its own: trained on a sample of the documents kept so far, or the given one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace import artifact, stage, storage
from headrace.artifact import Artifact, StageOutput
from headrace.schema import DOCUMENTS
from headrace.split import TRAIN, draw
from headrace.stage import Engine, UnitResult
from headrace.text.cuts import remaining
from headrace.tokens.tokenizer import Tokens, end_of_text, read_tokenizer, train_bpe
from headrace.verdicts import cuts_of, kept_rows, parts_of, unit_inputs

VERSION = 1
TOKENIZER = "tokenizer.json"
ROWS = 512  # documents read at a time
SAMPLE_SALT = 0x70CE  # the sample and the split draw from the same hashes, so they must not draw alike


def make_tokenizer(
    documents: Artifact, verdicts: Sequence[Artifact], split: Artifact | None, config: Tokens, seed: int, folder: Path, engine: Engine
) -> StageOutput:
    """Write tokenizer.json.

    Args:
        verdicts: of the stages so far. Where deduplication looks at tokens, it needs the tokenizer before it has judged.
        split: its training part alone is sampled; null as long as there is none.

    Raises:
        ConfigError: the file given as a tokenizer is none, or has no end-of-text token.
    """
    records: list[dict[str, Any]] = []
    if config.tokenizer != "bpe":
        tokenizer = read_tokenizer(Path(config.tokenizer))
    else:
        share = min(1.0, config.sample_bytes / max(1, documents.totals.get("text_bytes", 0)))
        inputs = unit_inputs(documents, [*verdicts, *([split] if split else [])])
        units = [{**unit, "share": share, "seed": seed, "split": split is not None} for unit in inputs]
        records = stage.run_units(sample_unit, units, folder, phase="sample", engine=engine)
        tokenizer = train_bpe(_sampled([folder / file["path"] for record in records for file in record["files"]]), config.vocab_size)
    storage.write_bytes(folder / TOKENIZER, json.dumps(json.loads(tokenizer.to_str()), indent=1, ensure_ascii=False).encode())
    eos = end_of_text(tokenizer)
    assert eos is not None
    counters = {"vocab_size": tokenizer.get_vocab_size(), "end_of_text": eos}
    sampled = [{**record, "files": []} for record in records]  # the sample goes with the other files of the work
    return StageOutput(sampled, [storage.file_entry(folder, folder / TOKENIZER)], counters)


def sample_unit(unit: dict[str, Any], folder: Path) -> UnitResult:
    """The documents of one unit that fall into the sample, as work/sample/<id>.parquet."""
    wanted = parts_of(unit) == TRAIN if unit["split"] else kept_rows(unit)
    cuts = cuts_of(unit)
    sampled = row = 0
    schema = pa.schema([DOCUMENTS.field("text")])
    with (
        pq.ParquetFile(storage.local(unit["documents"]), page_checksum_verification=True) as file,
        artifact.table_writer(folder / "work" / "sample" / f"{unit['id']}.parquet", schema) as writer,
    ):
        for batch in file.iter_batches(ROWS, columns=["doc", "text"]):
            numbers = batch["doc"].to_numpy()
            chosen = wanted[row : row + len(numbers)] & (draw(numbers.astype(np.uint64), unit["seed"] ^ SAMPLE_SALT) < unit["share"])
            kept = batch.filter(pa.array(chosen))
            texts = [remaining(text.as_py(), cuts.of(doc.as_py())) for doc, text in zip(kept["doc"], kept["text"])]
            writer.write_table(pa.table([pa.array(texts, pa.string())], schema=schema))
            sampled += len(texts)
            row += len(numbers)
    return UnitResult(sampled, sampled)


def _sampled(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        for batch in pq.ParquetFile(storage.local(path), page_checksum_verification=True).iter_batches(ROWS, columns=["text"]):
            yield from batch["text"].to_pylist()
