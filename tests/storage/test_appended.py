"""Append-only files on a store: parts, joining, several writers, a writer that is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace import fence, storage
from headrace.storage import appended, mirror


@pytest.fixture
def run(s3, bucket):
    return storage.attach(f"s3://{bucket}/runs/one")


@pytest.fixture
def path(run):
    return run / "train" / "metrics.jsonl"


def add(path, *steps):
    for step in steps:
        storage.append_line(path, {"step": step})


def steps(path):
    return [line["step"] for line in storage.read_lines(path)]


def test_lines_are_parts_until_they_are_joined(run, path, keys, s3):
    add(path, 1, 2)
    assert s3.asked == 0 and keys() == []
    storage.flush()
    add(path, 3)
    assert steps(path) == [1, 2, 3]
    parts = [f"runs/one/train/metrics.jsonl.parts/0000000{number}" for number in (1, 2)]
    assert keys() == parts
    assert storage.names(run / "train") == ["metrics.jsonl"]
    storage.join(run)
    assert keys() == ["runs/one/train/metrics.jsonl"]
    assert storage.read_bytes(path) == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    add(path, 4)
    assert steps(path) == [1, 2, 3, 4]
    assert keys() == ["runs/one/train/metrics.jsonl", "runs/one/train/metrics.jsonl.parts/00000003"]


def test_a_writer_publishes_by_itself_in_time(path, keys, monkeypatch):
    monkeypatch.setattr(appended, "PUBLISH_S", 0.2)
    add(path, 1)
    deadline = time.monotonic() + 30
    while not keys() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(keys()) == 1 and steps(path) == [1]


def test_lines_that_a_store_did_not_take_come_later(path, s3):
    add(path, 1)
    s3.every["busy"] = 1
    with pytest.raises(storage.StorageError):
        storage.flush()
    s3.forget()
    add(path, 2)
    assert steps(path) == [1, 2]


def test_lines_of_who_was_replaced_meanwhile_are_dropped(run, path):
    replaced, writer = fence.Group.claim(run), appended.Writer(mirror.locate(path))  # in a process of its own: it stands still
    writer.add(b'{"step": 1}\n', replaced.look)
    writer.publish()
    writer.add(b'{"step": 2}\n', replaced.look)
    successor = fence.Group.claim(run)
    storage.append_line(path, {"step": 2}, unless=successor.look)
    storage.flush()
    writer.publish()
    assert steps(path) == [1, 2]


def test_writers_and_joiners_at_once_lose_and_double_nothing(run, path):
    spot = mirror.locate(path)

    def write(number):
        writer = appended.Writer(spot)
        for step in range(10):
            writer.add(json.dumps({"step": 100 * number + step}).encode() + b"\n", None)
            writer.publish()

    def join(_):
        for _ in range(10):
            storage.join(run)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: join(number) if number > 3 else write(number), range(6)))
    found = steps(path)
    assert sorted(found) == [100 * number + step for number in range(4) for step in range(10)]
    for number in range(4):
        assert [step for step in found if step // 100 == number] == [100 * number + step for step in range(10)]


def test_a_join_that_is_cut_short_doubles_nothing(run, path, s3, keys):
    add(path, 1, 2)
    storage.flush()
    s3.refused = ("POST", "")  # parts are joined, and cannot be taken away
    with pytest.raises(Exception, match="AccessDenied"):
        storage.join(run)
    assert len(keys()) == 2
    s3.forget()
    assert steps(path) == [1, 2]
    add(path, 3)
    storage.join(run)
    assert keys() == ["runs/one/train/metrics.jsonl"] and steps(path) == [1, 2, 3]


def test_lines_behind_a_step_are_dropped_and_counted_on(run, path):
    add(path, 1, 2)
    storage.flush()
    add(path, 3)
    storage.rewrite_lines(path, [line for line in storage.read_lines(path) if line["step"] <= 2])
    assert steps(path) == [1, 2]
    add(path, 3, 4)
    storage.flush()
    storage.join(run)
    assert steps(path) == [1, 2, 3, 4]


def test_a_tail_gives_each_line_once(run, path, monkeypatch):
    monkeypatch.setattr(appended, "LOOK_S", 0.0)
    tail = storage.store_tail(path)
    assert tail.lines() == []
    add(path, 1, 2)
    assert [line["step"] for line in tail.lines()] == [1, 2]
    add(path, 3)
    assert [line["step"] for line in tail.lines()] == [3]
    assert tail.lines() == []
    add(path, 4)
    storage.join(run)
    add(path, 5)
    assert [line["step"] for line in tail.lines()] == [4, 5]
    storage.rewrite_lines(path, [{"step": 1}])
    add(path, 2)
    assert [line["step"] for line in tail.lines()] == [1, 2]


def test_a_killed_writer_loses_what_it_added_last(path, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from headrace import storage\n"
        "path = Path(sys.argv[1])\n"
        "storage.append_line(path, {'step': 1})\n"
        "storage.flush()\n"
        "storage.append_line(path, {'step': 2})\n"
        "print('added', flush=True)\n"
        "time.sleep(600 if sys.argv[2] == 'stay' else 0)"
    )
    start = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen([*start, "stay"], stdout=subprocess.PIPE, env={**os.environ}) as killed:
        assert killed.stdout.readline() == b"added\n"
        killed.kill()
    assert steps(path) == [1]
    subprocess.run([*start, "end"], check=True, stdout=subprocess.DEVNULL)
    assert steps(path) == [1, 1, 2]
