"""The same removals whatever the units, the order in which files are named, and who does the work."""

from __future__ import annotations

import json
import os
import random

import pytest

from headrace import artifact, pipeline, shuffle, stage
from headrace.config import validate
from headrace.dedup import phases
from headrace.dedup.index import Index
from headrace.dedup.levels import Dedup, deduplicate
from headrace.run import RunConfig
from headrace.stage import UnitResult

WORDS = [f"word{number}" for number in range(3000)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Five files of documents that repeat one another, whole, nearly, and in parts."""
    rng = random.Random(1)
    originals = [rng.choices(WORDS, k=rng.randrange(5, 400)) for _ in range(120)]
    folder = tmp_path_factory.mktemp("raw")
    for number in range(5):
        lines = []
        for row in range(60):
            words = list(rng.choice(originals))
            for _ in range(rng.randrange(3)):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
            text = ". ".join(" ".join(words[start : start + 12]).capitalize() for start in range(0, len(words), 12))
            lines.append(json.dumps({"id": f"d{number}-{row}", "text": text + "."}))
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def removed(folder, files, unit_bytes):
    """What was removed, by the documents' own ids; and the number of units."""
    values = {
        "out": str(folder),
        "unit_bytes": unit_bytes,
        "sources": [{"name": "a", "kind": "prose", "path": [str(path) for path in files], "filters": []}],
        "dedup": {"sentence": {"min_words": 10}, "document": {"rule": "components"}},
        "split": {"validation": 0.2},
        "tokens": {"vocab_size": 320, "sequence_length": 16},
    }
    config = validate(RunConfig, values, "test")
    pipeline.curate(config, "local")
    stage = artifact.Artifact.open(folder / "data" / "dedup" / pipeline.stage_plans(config)["dedup"].fingerprint)
    rows = [row for path in stage.files("removed") for row in artifact.read_table(path).to_pylist()]
    return {tuple(value for name, value in row.items() if name != "doc") for row in rows}, len(stage.units)


def nothing_is_small(monkeypatch):
    monkeypatch.setattr(phases, "SMALL_BYTES", -1)
    monkeypatch.setattr(phases, "SMALL_TEXT_BYTES", -1)


def test_any_unit_size_and_any_order_of_files(raw, tmp_path):
    files = sorted(raw.iterdir())
    expected, one = removed(tmp_path / "one", files, 1 << 24)
    found, several = removed(tmp_path / "several", [files[place] for place in (3, 0, 4, 2, 1)], 1 << 16)
    assert (one, several > 4) == (1, True)
    assert found == expected
    assert {level for _, level, *_ in expected} == {"document", "sentence"}
    assert len(expected) > 100


def test_ray_and_this_process_in_every_phase(raw, tmp_path, documents_file, monkeypatch, ray_session):
    texts = [[json.loads(line)["text"] for line in path.read_text().splitlines()] for path in sorted(raw.iterdir())[:3]]
    units = [documents_file(tmp_path, rank, found) for rank, found in enumerate(texts)]
    config = Dedup.model_validate({"document": {"rule": "components"}})
    monkeypatch.setattr(shuffle, "PARTITION_BYTES", 15_000)
    local = deduplicate(units, config, tmp_path / "local", "local")
    monkeypatch.setattr(stage, "_run_on_ray", None)  # so little text is not worth a round of it
    assert deduplicate(units, config, tmp_path / "threads", "ray") == local
    monkeypatch.undo()
    monkeypatch.setattr(shuffle, "PARTITION_BYTES", 15_000)
    nothing_is_small(monkeypatch)
    monkeypatch.setattr(shuffle, "stays_here", lambda *_: False)
    there = deduplicate(units, config, tmp_path / "ray", "ray")
    assert there == local
    assert len(list((tmp_path / "ray" / "work" / "candidates").glob("*.parquet"))) > 2


def tell_process(unit, folder):
    return UnitResult(counters={"process": os.getpid()})


def test_an_old_index_is_read_by_the_cluster_however_little_new_text_there_is(tmp_path, documents_file, ray_session):
    units = [documents_file(tmp_path, rank, ["the text of a document"]) for rank in range(2)]
    under_way = phases.Phases(units, tmp_path / "run" / "dedup", "ray", Index(units=({"id": "old"},)))
    assert {each["counters"]["process"] for each in under_way.run(tell_process, "new")} == {os.getpid()}
    (old,) = under_way.run_index(tell_process, "old")
    assert old["counters"]["process"] != os.getpid()


def test_one_two_and_four_workers(raw, tmp_path, documents_file, monkeypatch, ray_session):
    texts = [[json.loads(line)["text"] for line in path.read_text().splitlines()] for path in sorted(raw.iterdir())]
    units = [documents_file(tmp_path, rank, found) for rank, found in enumerate(texts)]
    config = Dedup.model_validate({"sentence": {"min_words": 10}})
    expected = deduplicate(units, config, tmp_path / "local", "local")
    nothing_is_small(monkeypatch)
    for workers in (1, 2, 4):  # the session has two slots for data: a task takes so much of them that so many run at once
        monkeypatch.setattr(stage, "data_slot", lambda workers=workers: {"data": 2 / workers})
        assert deduplicate(units, config, tmp_path / f"{workers}", "ray") == expected
