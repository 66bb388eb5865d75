from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import artifact, shuffle
from headrace.shuffle import ShuffleError, keyed_reduce, num_partitions, partition_of, stays_here

CALLS = []


def sums(rows):
    """Sum, count and first value of each key; fails unless the rows come sorted by all columns."""
    CALLS.append(rows.num_rows)
    assert rows.equals(rows.sort_by([(name, "ascending") for name in rows.column_names]))
    return rows.group_by("key").aggregate([("value", "sum"), ("value", "count"), ("value", "min")]).cast(pa.schema([
        ("key", pa.uint64()), ("value_sum", pa.int64()), ("value_count", pa.int64()), ("value_min", pa.int64())
    ]))  # fmt: skip


def write_inputs(folder, files=3, rows=1000, keys=97, seed=0):
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(files):
        table = pa.table({"key": rng.integers(0, keys, rows, np.uint64) << np.uint64(50), "value": rng.integers(-9, 9, rows)})
        paths.append(folder / f"in-{number}.parquet")
        artifact.write_table(table, paths[-1])
    return paths


def reduce(inputs, folder, partitions, engine="local", **more):
    return keyed_reduce(inputs, "key", sums, folder, partitions=partitions, engine=engine, **more)


def whole(parts):
    return pa.concat_tables([artifact.read_table(path) for path in parts]).sort_by("key").combine_chunks()


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_all_rows_of_a_key_meet_once(tmp_path):
    inputs = write_inputs(tmp_path)
    CALLS.clear()
    parts = reduce(inputs, tmp_path / "out", 4)
    assert [path.name for path in parts] == [f"part-{n:05d}.parquet" for n in range(4)]
    assert len(CALLS) == 4
    rows = pa.concat_tables([artifact.read_table(path) for path in inputs])
    found = whole(parts).to_pydict()
    assert found["key"] == sorted(set(rows["key"].to_pylist()))
    for key, total, count, smallest in zip(*found.values()):
        values = rows.filter(pc.equal(rows["key"], pa.scalar(key, pa.uint64())))["value"].to_numpy()
        assert (total, count, smallest) == (values.sum(), len(values), values.min())


@pytest.mark.parametrize("partitions", [1, 2, 7, 64])
def test_the_result_depends_neither_on_partitions_nor_on_the_order_of_inputs(tmp_path, partitions):
    inputs = write_inputs(tmp_path)
    expected = whole(reduce(inputs, tmp_path / "one", 1))
    parts = reduce(inputs[::-1], tmp_path / "many", partitions)
    assert whole(parts).equals(expected)
    for number, path in enumerate(parts):
        keys = artifact.read_table(path)["key"].to_numpy()
        assert set(partition_of(keys, partitions).tolist()) <= {number}
        assert np.all(np.diff(keys.astype(np.float64)) > 0)


def test_partitions_without_rows_are_there_and_empty(tmp_path):
    inputs = write_inputs(tmp_path, files=1, keys=1)
    parts = reduce(inputs, tmp_path / "out", 5)
    assert sorted(artifact.read_table(path).num_rows for path in parts) == [0, 0, 0, 0, 1]
    assert len({artifact.read_table(path).schema for path in parts}) == 1


def test_a_killed_call_continues_with_the_missing_partitions_and_the_same_bytes(tmp_path):
    inputs = write_inputs(tmp_path)
    out = tmp_path / "out"
    reduce(inputs, out, 8)
    expected = contents(out)
    (out / "part-00001.json").unlink()  # killed between the file and its record
    (out / "part-00003.json").unlink()
    (out / "part-00003.parquet").unlink()
    (out / "part-00005.parquet").write_bytes(expected["part-00005.parquet"][:100])  # cut short
    CALLS.clear()
    reduce(inputs, out, 8)
    assert len(CALLS) == 3
    assert contents(out) == expected
    CALLS.clear()
    reduce(inputs, out, 8)
    assert CALLS == []


def test_lost_rows_are_noticed(tmp_path):
    inputs = write_inputs(tmp_path)
    out = tmp_path / "out"
    reduce(inputs, out, 2)
    more = write_inputs(tmp_path / "more", files=4)
    with pytest.raises(ShuffleError, match="3000 of 4000 rows"):
        reduce(more, out, 2)
    parts = reduce(more, out, 2)  # what was wrong was discarded
    assert whole(parts).equals(whole(reduce(more, tmp_path / "fresh", 1)))


def test_in_process_too_a_large_table_is_reduced_in_waves(tmp_path, monkeypatch):
    inputs = write_inputs(tmp_path)
    reduce(inputs, tmp_path / "once", 7)
    read = []
    monkeypatch.setattr(shuffle, "HERE_WAVE_BYTES", 12_000)  # 48,000 bytes: four waves
    monkeypatch.setattr(shuffle, "_read_partitioned", lambda *given, real=shuffle._read_partitioned: read.append(given[3]) or real(*given))
    reduce(inputs, tmp_path / "waves", 7)
    assert contents(tmp_path / "waves") == contents(tmp_path / "once")
    assert read == [wanted for wanted in ([0, 1], [2, 3], [4, 5], [6]) for _ in inputs]


def test_ray_writes_the_same_bytes_as_this_process(tmp_path, ray_session):
    inputs = write_inputs(tmp_path)
    reduce(inputs, tmp_path / "local", 7)
    parts = reduce(inputs, tmp_path / "ray", 7, "ray", wave_bytes=24_000)  # 48,000 bytes: two waves
    expected = contents(tmp_path / "local")
    assert contents(tmp_path / "ray") == expected
    parts[0].with_suffix(".json").unlink()  # a killed call continues in either engine
    parts[4].unlink()
    reduce(inputs, tmp_path / "ray", 7, "ray")
    assert contents(tmp_path / "ray") == expected


def plain_sums(rows):
    return rows.group_by("key").aggregate([("value", "sum")]).rename_columns(["key", "value"])


@pytest.mark.full  # tests/faults/test_nodes.py has an instance for every run of the suite
def test_a_node_killed_while_it_reduces_changes_nothing(tmp_path):
    inputs = write_inputs(tmp_path, files=6, rows=3000, keys=500)
    keyed_reduce(inputs, "key", plain_sums, tmp_path / "local", partitions=12, engine="local")
    script = Path(__file__).with_name("run_lost_node.py")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["killed"] in told["before"]
    assert told["killed"] not in told["alive"]
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_auto_stays_in_this_process_while_waves_are_few_and_fit(tmp_path):
    wave, most = shuffle.HERE_WAVE_BYTES, shuffle.HERE_WAVES * shuffle.HERE_WAVE_BYTES
    assert stays_here("auto", most, available=4 * wave)
    assert not stays_here("auto", most + 1, available=4 * wave)
    assert not stays_here("auto", most, available=4 * wave - 4)
    assert stays_here("auto", 1, available=4)
    assert stays_here("local", most + 1, available=0)
    assert not stays_here("ray", 1, available=4 * wave)
    inputs = write_inputs(tmp_path)
    CALLS.clear()
    reduce(inputs, tmp_path / "out", 2, "auto")
    assert len(CALLS) == 2


@settings(deadline=None)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1), st.integers(1, 1000))
def test_a_key_has_one_partition_whatever_its_type(keys, partitions):
    found = partition_of(np.array(keys, np.int64), partitions)
    assert np.array_equal(found, partition_of(np.array(keys, np.int32), partitions))
    assert found.min() >= 0
    assert found.max() < partitions
    positive = [key for key in keys if key >= 0]
    assert np.array_equal(partition_of(np.array(positive, np.uint64), partitions), partition_of(np.array(positive, np.int64), partitions))


def test_splitmix64_is_the_published_one():
    # First outputs for seed 1234567, as printed by the reference code (Vigna, prng.di.unimi.it/splitmix64.c; Rosetta Code).
    golden, seed = 0x9E3779B97F4A7C15, 1234567
    states = np.array([(seed + golden * step) % 2**64 for step in range(3)], np.uint64)
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for partitions in (1 << 20, 999_983):
        assert partition_of(states, partitions).tolist() == [value % partitions for value in first]


def test_partitions_are_even():
    counts = np.bincount(partition_of(np.arange(100_000), 10), minlength=10)
    assert abs(counts - 10_000).max() < 5 * 95  # standard deviation of a fair draw: 95


def test_the_number_of_partitions_follows_the_tables_alone(tmp_path, monkeypatch):
    inputs = write_inputs(tmp_path)
    assert num_partitions(inputs) == 1
    monkeypatch.setattr(shuffle, "PARTITION_BYTES", 10_000)
    assert num_partitions(inputs) == 5  # 3 x 1000 rows of 16 bytes


def test_inputs_that_cannot_be_shuffled_are_named(tmp_path):
    with pytest.raises(ValueError, match="no input files"):
        keyed_reduce([], "key", sums, tmp_path / "out", partitions=1, engine="local")
    (inputs,) = write_inputs(tmp_path, files=1)
    with pytest.raises(ValueError, match=r"in-0.parquet: no column 'doc' among \['key', 'value'\]"):
        keyed_reduce([inputs], "doc", sums, tmp_path / "out", partitions=1, engine="local")
    pq.write_table(pa.table({"key": pa.array([1], pa.uint64()), "value": ["text"]}), tmp_path / "text.parquet")
    with pytest.raises(TypeError, match="column 'value' is string; only integers are shuffled"):
        reduce([tmp_path / "text.parquet"], tmp_path / "out", 1)
    with pytest.raises(ValueError, match=r"text.parquet: its columns"):
        reduce([inputs, tmp_path / "text.parquet"], tmp_path / "out", 1)
