from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from typer.testing import CliRunner

from headrace import artifact, cli, schema, storage
from headrace.artifact import StageOutput
from headrace.config import ConfigError
from headrace.ingest.documents import ingest_unit
from headrace.ingest.listing import plan_units
from headrace.ingest.source import Source
from headrace.materialize import materialize
from headrace.stage import UnitResult, run_units

# Of each document: source, id, text, meta, why filters reject it, why dedup does, and what is cut out of it. A list a unit.
UNITS = [
    [
        ("web", "w0", "Zażółć gęślą jaźń 🙂 koniec.", '{"k":[1,2]}', None, None, [("sentence", 0, 7), ("token", 5, 12), ("token", 20, 27)]),
        ("web", "w1", "Rejected by filters.", None, "gopher:short", None, []),
        ("web", "w2", "A copy.", None, None, "exact_duplicate", []),
        ("web", "w2", "The same id, and a line\nfeed.", None, None, None, []),
    ],
    [("code", "c0", "Nothing is kept of this unit.", None, None, "near_duplicate", [])],
    [("code", "c1", "def f():\n    pass\n", '{"from":"x"}', None, None, [("sentence", 8, 17)])],
]
CLEAN = [
    {"id": "w0", "text": " jaźń 🙂 ", "source": "web", "lang": None, "url": "u://w0", "meta": {"k": [1, 2]}},
    {"id": "w2", "text": "The same id, and a line\nfeed.", "source": "web", "lang": None, "url": "u://w2", "meta": None},
    {"id": "c1", "text": "def f():\n", "source": "code", "lang": None, "url": "u://c1", "meta": {"from": "x"}},
]


def write_stage(unit, folder):
    """One unit of a stage as its rows say."""
    rank, rows = unit["rank"], UNITS[unit["rank"]]
    docs = pa.array([(rank << 32) + row for row in range(len(rows))], pa.int64())
    name = f"{unit['id']}.parquet"
    if unit["stage"] == "ingest":
        source, ids, text, meta = (pa.array([row[place] for row in rows], pa.string()) for place in range(4))
        urls = pa.array([f"u://{row[1]}" for row in rows])
        table = pa.table([docs, ids, text, source, pa.nulls(len(rows), pa.string()), urls, meta], schema=schema.DOCUMENTS)
        artifact.write_table(table, folder / "documents" / name, row_group_rows=2)
        return UnitResult()
    reasons = pa.array([row[4 if unit["stage"] == "filters" else 5] for row in rows], pa.string())
    artifact.write_table(pa.table({"doc": docs, "reason": reasons}), folder / "verdicts" / name)
    if unit["stage"] == "dedup":
        removed = [
            {"doc": docs[number].as_py(), "id": row[1], "level": level, "start": start, "end": end}
            for number, row in enumerate(rows)
            for level, start, end in [*row[6], *([("document", None, None)] if row[5] else [])]
        ]
        artifact.write_table(pa.Table.from_pylist(removed, schema.REMOVED), folder / "removed" / name)
    return UnitResult()


def make_run(folder, stages=("ingest", "filters", "dedup")):
    names = {}
    for stage in stages:
        units = [{"id": f"u{rank:05d}", "rank": rank, "source": rows[0][0], "stage": stage} for rank, rows in enumerate(UNITS)]

        def make(into, units=units):
            return StageOutput(run_units(write_stage, units, into, phase="write", engine="local"))

        made = artifact.build(folder, stage, version=1, config=None, inputs=None, make=make, event=lambda *_, **__: None)
        names[stage] = made.fingerprint
    storage.write_json(folder / "data" / "current.json", names)
    return folder


def rows_of(folder):
    rows = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".zst":
            with zstandard.open(path, "rt", encoding="utf8") as lines:
                rows += [json.loads(line) for line in lines]
        else:
            found = pq.read_table(path).to_pylist()
            rows += [{**row, "meta": None if row["meta"] is None else json.loads(row["meta"])} for row in found]
    return rows


@pytest.mark.parametrize("form, suffix", [("jsonl", "jsonl.zst"), ("parquet", "parquet")])
def test_kept_documents_without_their_cuts(tmp_path, form, suffix):
    found = materialize(make_run(tmp_path / "run"), tmp_path / "out", form)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [f"u00000.{suffix}", f"u00002.{suffix}"]
    assert rows_of(tmp_path / "out") == CLEAN
    text_bytes = sum(len(row["text"].encode()) for row in CLEAN)
    assert found == {"folder": str(tmp_path / "out"), "files": 2, "documents": 3, "text_bytes": text_bytes, "cut_chars": 19 + 9}


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = make_run(tmp_path / "run")
    for form in ("jsonl", "parquet"):
        for name in ("one", "two"):
            materialize(run, tmp_path / form / name, form)
        one, two = (sorted((tmp_path / form / name).iterdir()) for name in ("one", "two"))
        assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_ingest_reads_it_back(tmp_path, form):
    materialize(make_run(tmp_path / "run"), tmp_path / "out", form)
    (unit,) = plan_units([Source(name="again", kind="web", path=str(tmp_path / "out"))])
    ingest_unit(unit, tmp_path / "ingested")
    again = artifact.read_table(tmp_path / "ingested" / "documents" / "u00000.parquet").to_pylist()
    assert [(row["id"], row["text"], row["url"]) for row in again] == [(row["id"], row["text"], row["url"]) for row in CLEAN]
    assert [json.loads(row["meta"])["source"] for row in again] == ["web", "web", "code"]


def test_a_run_without_deduplication(tmp_path):
    run = make_run(tmp_path / "run", ["ingest", "filters"])
    assert materialize(run, tmp_path / "out", "jsonl")["documents"] == 5


def test_what_is_not_made_or_would_be_mixed_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="has no stage 'ingest'"):
        materialize(tmp_path / "none", tmp_path / "out", "jsonl")
    run = make_run(tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ConfigError, match=r"^--out = .*out': the folder is not empty"):
        materialize(run, tmp_path / "out", "jsonl")
    (run / "data" / "dedup" / storage.read_json(run / "data" / "current.json")["dedup"] / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="its dedup are not made yet"):
        materialize(run, tmp_path / "other", "jsonl")
    assert not (tmp_path / "other").exists()


def test_the_verb(tmp_path):
    run = make_run(tmp_path / "run")
    sources = [{"name": "s", "kind": "web", "path": "x"}]
    storage.write_json(run / "config.yaml", {"out": str(run), "sources": sources})  # JSON is YAML
    ran = CliRunner().invoke(cli.app, ["materialize", str(run), "--out", str(tmp_path / "out"), "--format", "parquet", "--json"])
    assert ran.exit_code == 0
    assert json.loads(ran.stdout)["documents"] == 3
    assert rows_of(tmp_path / "out") == CLEAN
    shown = CliRunner().invoke(cli.app, ["materialize", str(run), "--out", str(tmp_path / "text")])
    assert shown.stdout.replace("\n", "").endswith("text: 2 files, 3 documents, 0.0 MB of text, 28 characters cut")
    assert cli.guarded(lambda: cli.app(["materialize", str(tmp_path), "--out", str(tmp_path / "x")])) == 2
