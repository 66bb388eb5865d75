"""The packed token store: one stream of token ids for each (source, part), cut into files, with an index of documents.

A stream is the concatenation of its files in unit order; every document in it ends with the end-of-text token. Training reads
windows of L + 1 tokens at stride L, so window i predicts the tokens [i * L + 1, (i + 1) * L]; the tail shorter than that is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from headrace import storage
from headrace.artifact import MANIFEST, Artifact, read_table, table_writer
from headrace.schema import token_dtype

Part = Literal["train", "validation"]
PARTS: tuple[Part, ...] = ("train", "validation")

INDEX = pa.schema(
    [
        pa.field("doc", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),  # first token, counted from the start of its file
        pa.field("tokens", pa.int64(), nullable=False),  # with the closing end-of-text token
        pa.field("bytes", pa.int64(), nullable=False),  # UTF-8 bytes of the text
    ]
)


class StreamWriter:
    """Writes one file of a stream, document by document: `tokens/<part>/<name>.bin` and `index/<part>/<name>.parquet`."""

    def __init__(self, folder: Path, name: str, part: str, vocab_size: int) -> None:
        self._dtype = token_dtype(vocab_size)
        self._index = folder / "index" / part / f"{name}.parquet"
        path = folder / "tokens" / part / f"{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = path.open("wb")
        self._rows: dict[str, list[int]] = {column: [] for column in INDEX.names}
        self.tokens = 0
        self.bytes = 0

    @property
    def documents(self) -> int:
        return len(self._rows["doc"])

    def add(self, doc: int, ids: Sequence[int] | np.ndarray[Any, Any], num_bytes: int) -> None:
        """Append a document: its ids with the closing end-of-text token, and the UTF-8 bytes of its text."""
        self._handle.write(np.asarray(ids, dtype=self._dtype).tobytes())
        for column, value in zip(INDEX.names, (doc, self.tokens, len(ids), num_bytes), strict=True):
            self._rows[column].append(value)
        self.tokens += len(ids)
        self.bytes += num_bytes

    def counters(self, part: str) -> dict[str, int]:
        """The account of this file, as a unit's counters hold it."""
        return {f"{part}_documents": self.documents, f"{part}_tokens": self.tokens, f"{part}_bytes": self.bytes}

    def close(self) -> None:
        self._handle.close()
        with table_writer(self._index, INDEX) as writer:
            writer.write_table(pa.table(self._rows, schema=INDEX))


@dataclass(frozen=True)
class StreamFile:
    """One file of a stream and where it stands in it."""

    path: Path
    index: Path
    start: int  # tokens of the stream before this file
    tokens: int


class TokenStore:
    """Read-only view of the `tokens` artifact; files are memory-mapped and opened on first use."""

    def __init__(self, artifact: Artifact) -> None:
        description = storage.read_json(artifact.folder / "store.json")
        self.folder = artifact.folder
        self.fingerprint = artifact.fingerprint
        self.vocab_size = int(description["vocab_size"])
        self.eos = int(description["eos"])
        self.sequence_length = int(description["sequence_length"])
        self._totals: dict[str, dict[str, dict[str, int]]] = description["sources"]
        self._dtype = token_dtype(self.vocab_size)
        self._files = _stream_files(artifact, description, self._dtype.itemsize)
        self._maps: dict[Path, np.ndarray[Any, Any]] = {}

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """The store in a committed `tokens` artifact.

        Raises:
            FileNotFoundError: the artifact was never committed.
        """
        return cls(Artifact.open(Path(folder)))

    @property
    def sources(self) -> list[str]:
        return sorted(self._totals)

    def num_tokens(self, source: str, part: str) -> int:
        return self._totals[source][part]["tokens"]

    def num_bytes(self, source: str, part: str) -> int:
        """UTF-8 bytes of the text behind the tokens."""
        return self._totals[source][part]["bytes"]

    def num_documents(self, source: str, part: str) -> int:
        return self._totals[source][part]["documents"]

    def num_sequences(self, source: str, part: str) -> int:
        """Windows of sequence_length + 1 tokens at stride sequence_length."""
        return max(0, (self.num_tokens(source, part) - 1) // self.sequence_length)

    def sequence(self, source: str, part: str, index: int) -> np.ndarray[Any, Any]:
        """Window `index` of a stream: int64 [sequence_length + 1]."""
        start = index * self.sequence_length
        return self.tokens(source, part, start, start + self.sequence_length + 1)

    def tokens(self, source: str, part: str, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Tokens [start, stop) of a stream: int64 [stop - start].

        Raises:
            IndexError: the range leaves the stream.
        """
        total = self.num_tokens(source, part)
        if not 0 <= start <= stop <= total:
            raise IndexError(f"{self.folder}: tokens [{start}, {stop}) of {source}/{part}, which has {total}.")
        pieces = []
        files = self._files.get((source, part), [])
        for file in files[_file_at(files, start) :]:
            if file.start >= stop:
                break
            low, high = max(start, file.start) - file.start, min(stop, file.start + file.tokens) - file.start
            if low < high:
                pieces.append(self._map(file.path)[low:high])
        return np.concatenate(pieces).astype(np.int64) if pieces else np.empty(0, np.int64)

    def documents(self, source: str, part: str) -> pa.Table:
        """Every document of a stream in order: doc, start (tokens from the start of the stream), tokens, bytes, all int64."""
        tables = []
        for file in self._files.get((source, part), []):
            table = read_table(file.index)
            start = pa.array(table["start"].to_numpy() + file.start, pa.int64())
            tables.append(table.set_column(1, INDEX.field("start"), start))
        return pa.concat_tables(tables) if tables else INDEX.empty_table()

    def _map(self, path: Path) -> np.ndarray[Any, Any]:
        if path not in self._maps:
            self._maps[path] = np.memmap(storage.local(path), dtype=self._dtype, mode="r")
        return self._maps[path]


def _file_at(files: Sequence[StreamFile], position: int) -> int:
    """Index of the file that holds token `position` of the stream."""
    import bisect

    return max(0, bisect.bisect_right([file.start for file in files], position) - 1)


def _stream_files(artifact: Artifact, description: dict[str, Any], item: int) -> dict[tuple[str, str], list[StreamFile]]:
    found: dict[tuple[str, str], list[StreamFile]] = {}
    for unit in artifact.units:
        for entry in unit["files"]:
            kind, part, name = (*entry["path"].split("/"), "")[:3]
            if kind != "tokens":
                continue
            source = description["unit_sources"][unit["id"]]
            files = found.setdefault((source, part), [])
            start = files[-1].start + files[-1].tokens if files else 0
            index = artifact.folder / "index" / part / name.replace(".bin", ".parquet")
            if entry["bytes"]:  # an empty file cannot be mapped, and adds nothing
                files.append(StreamFile(artifact.folder / entry["path"], index, start, entry["bytes"] // item))
    return found


def describe(
    units: Sequence[dict[str, Any]], unit_sources: dict[str, str], *, vocab_size: int, eos: int, sequence_length: int
) -> dict[str, Any]:
    """The content of `store.json`: what a reader must know beside the files, with the sums of each (source, part)."""
    sources: dict[str, dict[str, dict[str, int]]] = {}
    for unit in units:
        parts = sources.setdefault(unit_sources[unit["id"]], {part: {"documents": 0, "tokens": 0, "bytes": 0} for part in PARTS})
        for part in PARTS:
            for what in ("documents", "tokens", "bytes"):
                parts[part][what] += unit["counters"].get(f"{part}_{what}", 0)
    return {
        "vocab_size": vocab_size,
        "eos": eos,
        "sequence_length": sequence_length,
        "dtype": token_dtype(vocab_size).str,
        "sources": sources,
        "unit_sources": unit_sources,
    }


def write_store(
    folder: Path,
    streams: dict[str, dict[str, Sequence[Sequence[int]]]],
    *,
    vocab_size: int,
    eos: int,
    sequence_length: int,
) -> TokenStore:
    """A committed store from token ids in memory, one unit a source: for trials and tests.

    Args:
        streams: {source: {part: documents}}, each document's ids without the closing end-of-text token.
    """
    units: list[dict[str, Any]] = []
    unit_sources: dict[str, str] = {}
    for rank, source in enumerate(sorted(streams)):
        unit_id = f"u{rank:05d}"
        counters: dict[str, int] = {}
        entries = []
        for part in PARTS:
            writer = StreamWriter(folder, unit_id, part, vocab_size)
            for row, ids in enumerate(streams[source].get(part, [])):
                writer.add(rank << 32 | row, [*ids, eos], len(ids))
            writer.close()
            counters |= writer.counters(part)
            entries += [folder / "tokens" / part / f"{unit_id}.bin", folder / "index" / part / f"{unit_id}.parquet"]
        files = [storage.file_entry(folder, path) for path in entries]
        units.append({"id": unit_id, "files": files, "rows_in": 0, "rows_out": 0, "rejected": {}, "counters": counters})
        unit_sources[unit_id] = source
    storage.write_json(
        folder / "store.json", describe(units, unit_sources, vocab_size=vocab_size, eos=eos, sequence_length=sequence_length)
    )
    manifest = {"stage": "tokens", "fingerprint": "0" * 16, "units": units, "files": [], "totals": {}}
    storage.write_json(folder / MANIFEST, manifest)
    return TokenStore.open(folder)
