from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pytest

from headrace import artifact, stage, storage
from headrace.artifact import Artifact, StageOutput
from headrace.stage import UnitResult


def double(unit, folder):
    """Write the doubled numbers of a unit; odd ones are rejected."""
    numbers = unit["numbers"]
    even = [number for number in numbers if number % 2 == 0]
    artifact.write_table(
        pa.table({"n": pa.array([2 * number for number in even], pa.int64())}), folder / "numbers" / f"{unit['id']}.parquet"
    )
    with (Path(unit["log"])).open("a") as log:
        log.write(unit["id"] + "\n")
    return UnitResult(len(numbers), len(even), {"odd": len(numbers) - len(even)}, {"sum": sum(even)})


def slowly(unit, folder):
    if unit["numbers"] is not None:
        time.sleep(0.2)
    return double(unit, folder)


def units_of(log, count=4):
    return [{"id": f"u{number:05d}", "source": "s", "numbers": list(range(number, number + 5)), "log": str(log)} for number in range(count)]


def build(run, units, engine="local", version=1):
    events = []
    made = artifact.build(
        run,
        "filters",
        version=version,
        config={"k": 1},
        inputs={"ingest": "x"},
        make=lambda folder: StageOutput(stage.run_units(double, units, folder, phase="numbers", engine=engine)),
        event=lambda *what, **more: events.append((*what, more)),
    )
    return made, events


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.jsonl"
    }


def test_a_stage_is_made_once_and_its_account_adds_up(tmp_path):
    made, events = build(tmp_path / "run", units_of(tmp_path / "log"))
    assert [event[1] for event in events] == ["started", "finished"]
    assert made.totals["rows_in"] == 20
    assert made.totals["rows_in"] == made.totals["rows_out"] + made.totals["rejected"]["odd"]
    assert made.totals["sum"] == sum(n for u in units_of("") for n in u["numbers"] if n % 2 == 0)
    assert [path.name for path in made.files("numbers")] == [f"u{n:05d}.parquet" for n in range(4)]
    again, events = build(tmp_path / "run", units_of(tmp_path / "log"))
    assert [event[1] for event in events] == ["skipped"]
    assert again.manifest == made.manifest
    assert (tmp_path / "log").read_text().count("u00000") == 1


def test_an_interrupted_stage_goes_on_and_ends_in_the_same_bytes(tmp_path):
    whole, _ = build(tmp_path / "whole", units_of(tmp_path / "log"))
    folder = tmp_path / "cut" / "data" / "filters" / whole.fingerprint
    stage.run_units(double, units_of(tmp_path / "log2")[:2], folder, phase="numbers", engine="local")  # then the driver was killed
    (folder / f"{storage.ASIDE}numbers-u00002-dead").mkdir()
    (folder / f"{storage.ASIDE}numbers-u00002-dead" / "half").write_bytes(b"x")
    made, _ = build(tmp_path / "cut", units_of(tmp_path / "log2"))
    assert sorted((tmp_path / "log2").read_text().split()) == [f"u{n:05d}" for n in range(4)]
    assert contents(made.folder) == contents(whole.folder)


def test_threads_make_the_same_and_stop_at_a_unit_that_fails(tmp_path):
    units = units_of(tmp_path / "log", 12)
    records = stage.run_units(double, units, tmp_path / "run" / "one", phase="numbers", engine="local")
    assert stage.run_units(double, units, tmp_path / "run" / "three", phase="numbers", engine="local", threads=3) == records
    units[0]["numbers"] = None
    (tmp_path / "log").unlink()
    with pytest.raises(TypeError):
        stage.run_units(slowly, units, tmp_path / "run" / "cut", phase="numbers", engine="local", threads=2)
    begun = (tmp_path / "log").read_text().split()
    assert len(begun) < len(units)
    assert sorted(path.stem for path in (tmp_path / "run" / "cut" / "done" / "numbers").iterdir()) == sorted(begun)


def test_a_damaged_artifact_is_made_again(tmp_path):
    made, _ = build(tmp_path / "run", units_of(tmp_path / "log"))
    before = contents(made.folder)
    made.files("numbers")[1].write_bytes(b"cut short")
    assert "bytes, the manifest says" in made.breaches()[0]
    again, events = build(tmp_path / "run", units_of(tmp_path / "log"))
    assert [event[1] for event in events] == ["started", "finished"]
    assert contents(again.folder) == before


def test_another_version_is_another_artifact(tmp_path):
    one, _ = build(tmp_path / "run", units_of(tmp_path / "log"))
    two, _ = build(tmp_path / "run", units_of(tmp_path / "log"), version=2)
    assert one.folder != two.folder


def test_ray_and_this_process_give_the_same_bytes(tmp_path, ray_session):
    here, _ = build(tmp_path / "here", units_of(tmp_path / "log"))
    there, _ = build(tmp_path / "there", units_of(tmp_path / "log"), engine="ray")
    assert contents(here.folder) == contents(there.folder)
    timings = storage.read_lines(there.folder / "timings.jsonl")
    assert [line["unit"] for line in timings] == [f"u{n:05d}" for n in range(4)]
    assert all(line["peak_rss_bytes"] > 1 << 20 for line in timings)


def test_a_manifest_holds_no_time_and_no_place(tmp_path):
    made, _ = build(tmp_path / "run", units_of(tmp_path / "log"))
    text = json.dumps(made.manifest)
    assert "seconds" not in text
    assert str(tmp_path) not in text


def test_an_account_that_does_not_add_up_is_our_own_mistake(tmp_path):
    def wrong(unit, folder):
        return UnitResult(3, 1, {"lost": 1})

    with pytest.raises(AssertionError):
        stage.run_units(wrong, [{"id": "u00000"}], tmp_path, phase="p", engine="local")


def test_an_artifact_without_a_manifest_does_not_open(tmp_path):
    with pytest.raises(FileNotFoundError):
        Artifact.open(tmp_path)


def test_a_flipped_byte_in_a_table_is_noticed(tmp_path):
    path = tmp_path / "t.parquet"
    artifact.write_table(pa.table({"n": pa.array(range(10_000), pa.int64())}), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(OSError):
        artifact.read_table(path)
