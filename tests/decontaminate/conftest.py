from __future__ import annotations

import json

import pyarrow as pa
import pytest

from headrace import artifact, schema
from headrace.decontaminate.index import build_index, load_index
from headrace.decontaminate.items import make_item


@pytest.fixture
def index_of(tmp_path):
    """A function: the index of items given as texts (or as lists of slots) for n-grams of n words, and its folder."""
    made = []

    def build(texts, n):
        folder = tmp_path / f"index-{len(made)}"
        made.append(folder)
        slots = [[[text]] if isinstance(text, str) else text for text in texts]
        build_index([make_item("set", f"i{row}", row, of, n) for row, of in enumerate(slots)], n, folder)
        return load_index(folder, n), folder

    return build


@pytest.fixture
def write_unit():
    """A function: a documents file with the verdicts of an earlier stage and what that stage cut out, as a unit."""

    def write(folder, rank, texts, rejected=(), cuts=(), row_group_rows=7, ids=None):
        docs = [(rank << 32) + row for row in range(len(texts))]
        nothing = pa.nulls(len(texts), pa.string())
        names = ids or [f"r{rank}-{row}" for row in range(len(texts))]
        columns = [docs, names, texts, ["s"] * len(texts), nothing, nothing, nothing]
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.DOCUMENTS)], schema=schema.DOCUMENTS)
        paths = {kind: folder / kind / f"u{rank:05d}.parquet" for kind in ("documents", "earlier", "cut")}
        artifact.write_table(table, paths["documents"], row_group_rows=row_group_rows)
        reasons = pa.array(["gopher" if row in rejected else None for row in range(len(texts))], pa.string())
        artifact.write_table(pa.table({"doc": pa.array(docs, pa.int64()), "reason": reasons}), paths["earlier"])
        removed = [[docs[row], names[row], "sentence", start, end, None, 1.0] for row, start, end in cuts]
        columns = list(zip(*removed)) if removed else [[]] * len(schema.REMOVED)
        artifact.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.REMOVED)], schema=schema.REMOVED), paths["cut"])
        return {
            "id": f"u{rank:05d}",
            "source": "s",
            "documents": str(paths["documents"]),
            "verdicts": [str(paths["earlier"])],
            "removed": [str(paths["cut"])],
        }

    return write


@pytest.fixture
def write_set():
    """A function: an evaluation set of these records, as JSON Lines."""

    def write(path, records):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
        return str(path)

    return write
