"""The token ids of documents: encoded once, while the text goes by, for the level of tokens and for the token store after it.

ids/<unit>.bin holds the ids of a documents file, document by document with nothing between them, as uint16 or uint32; ids/<unit>.parquet
says where each document's are. Every document is there that the stages before deduplication keep, whole, whatever is dropped or cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace import artifact, schema, storage
from headrace.dedup import sidecars
from headrace.text.encoding import cached_spelling, cached_tokenizer, encode_texts

IDS = pa.schema(
    [
        pa.field("doc", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),  # first token, counted from the start of the file
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),  # UTF-8 bytes of the text
        pa.field("spelled", pa.bool_(), nullable=False),  # the tokens spell the text, so they tell where in it they are
    ]
)

IDS_KIND = "ids"  # of the stage's files

Int64s = npt.NDArray[np.int64]


class IdsSigner:
    """ids/: the token ids of each document."""

    def __init__(self, unit: dict[str, Any], folder: Path) -> None:
        self.counters = {"tokens_encoded": 0}
        path = str(storage.local(unit["token"]["tokenizer"]))
        self._tokenizer, self._spelling = cached_tokenizer(path), cached_spelling(path)
        self._dtype = schema.token_dtype(len(self._spelling.begun))
        self._rows = sidecars.RowWriter(folder / "ids" / f"{unit['id']}.parquet", IDS)
        self._handle = (folder / "ids" / f"{unit['id']}.bin").open("wb")

    def add(self, docs: Int64s, texts: list[str]) -> None:
        ids = encode_texts(self._tokenizer, texts)
        offsets = np.zeros(len(ids) + 1, np.int64)
        np.cumsum([len(each) for each in ids], out=offsets[1:])
        joined = np.concatenate(ids) if ids else np.empty(0, np.uint32)
        spelled = self._spelling.spell(joined, offsets, texts)
        num_bytes = np.array([len(text) if text.isascii() else len(text.encode()) for text in texts], np.int64)
        self._handle.write(joined.astype(self._dtype).tobytes())
        self._rows.write(docs, self.counters["tokens_encoded"] + offsets[:-1], np.diff(offsets), num_bytes, spelled)
        self.counters["tokens_encoded"] += len(joined)

    def close(self) -> None:
        self._handle.close()
        self._rows.close()


def ids_folder(unit: Mapping[str, Any], suffix: str = "") -> Path:
    """Where the ids lie that a pass of the level of tokens looks at: those of the stage, or what an earlier pass left of them."""
    work = Path(unit["work"])
    return work / f"{IDS_KIND}{suffix}" if suffix else work.parent / IDS_KIND


def ids_of(unit: Mapping[str, Any], suffix: str = "") -> TokenIds:
    """The ids of a documents file, or of a unit of an index, as they are for that pass."""
    path = Path(unit["files"][f"tokens{suffix}"]) if "files" in unit else ids_folder(unit, suffix) / f"{unit['id']}.parquet"
    return TokenIds.open(path.parent, path.stem)


@dataclass(frozen=True)
class TokenIds:
    """The ids of one documents file, memory-mapped; columns are those of its table, a row a document."""

    ids: npt.NDArray[np.unsignedinteger[Any]]
    doc: Int64s
    start: Int64s
    tokens: Int64s
    spelled: npt.NDArray[np.bool_]

    @classmethod
    def open(cls, folder: Path, unit_id: str) -> TokenIds:
        """Those that lie in `folder` under this name.

        Raises:
            ValueError: the ids are not as many as the table says.
        """
        table = artifact.read_table(folder / f"{unit_id}.parquet")
        doc, start, tokens, spelled = (table[name].to_numpy() for name in ("doc", "start", "tokens", "spelled"))
        path = storage.local(folder / f"{unit_id}.bin")
        size, total = path.stat().st_size, int(tokens.sum())
        if size not in (2 * total, 4 * total):
            raise ValueError(
                f"{path}: {size} bytes are not {total} ids of 16 or 32 bits; delete {folder.parent} and run the same command again."
            )
        if not total:  # an empty file cannot be mapped
            return cls(np.empty(0, np.uint16), doc, start, tokens, spelled)
        return cls(np.memmap(path, np.dtype(f"<u{size // total}"), "r").view(np.ndarray), doc, start, tokens, spelled)

    def rows_at(self, positions: Int64s) -> Int64s:
        """Rows of the documents that hold these tokens of the file: int64 [N]."""
        return np.searchsorted(self.start, positions, side="right") - 1

    def rows_of(self, docs: Int64s) -> Int64s:
        """Rows of these documents, all of which are here: int64 [N]."""
        return np.searchsorted(self.doc, docs)

    def of(self, doc: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """The ids of one document, which is here: [tokens]."""
        row = int(self.rows_of(np.array([doc]))[0])
        return self.ids[self.start[row] : self.start[row] + self.tokens[row]]

    def pieced(self, start: Int64s, end: Int64s, folder: Path, unit_id: str) -> TokenIds:
        """The ids of these pieces alone, in order and within documents, joined document by document; written to `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{unit_id}.bin").open("wb") as handle:
            for low, high in zip(start.tolist(), end.tolist()):
                handle.write(self.ids[low:high].tobytes())
        tokens = np.bincount(self.rows_at(start), end - start, len(self.doc)).astype(np.int64)
        nothing = np.zeros_like(tokens)
        columns = [self.doc, np.cumsum(tokens) - tokens, tokens, nothing, nothing.astype(bool)]
        artifact.write_table(pa.table([pa.array(column) for column in columns], schema=IDS), folder / f"{unit_id}.parquet")
        return TokenIds.open(folder, unit_id)
