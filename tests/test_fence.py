"""A process whose successor has begun commits nothing: no stage, no result."""

from __future__ import annotations

import time

import pytest

from headrace import artifact, fence, storage
from headrace.artifact import MANIFEST, StageOutput
from headrace.evaluate import result

RECORD = {"id": "u", "files": [], "rows_in": 1, "rows_out": 1, "rejected": {}, "counters": {}}


@pytest.fixture
def be(monkeypatch):
    """A function that makes this process attempt `number` at a job."""

    def become(run, job, number):
        for name, value in fence.Identity(run, job, number).variables().items():
            monkeypatch.setenv(name, value)

    return become


def begin(run, job, number):
    assert storage.create(fence.attempt_path(run, job, number), b"{}")


def build(run, make=lambda folder: StageOutput([RECORD])):
    return artifact.build(run, "split", version=1, config={}, inputs={}, make=make, event=lambda *_, **__: None)


def test_outside_a_job_nobody_is_fenced(tmp_path, monkeypatch):
    monkeypatch.delenv(fence.JOB, raising=False)
    fence.check()
    assert build(tmp_path).totals["rows_in"] == 1


def test_the_newest_attempt_commits_and_those_before_it_do_not(tmp_path, be):
    begin(tmp_path, "data", 1)
    be(tmp_path, "data", 1)

    def overtaken(folder):
        begin(tmp_path, "data", 2)
        return StageOutput([RECORD])

    with pytest.raises(fence.Fenced, match=r"attempt 1 at data is fenced: .*2\.json"):
        build(tmp_path, overtaken)
    assert not list(tmp_path.glob(f"data/*/*/{MANIFEST}"))
    with pytest.raises(fence.Fenced):  # nor does it clear away what its successor has aside
        build(tmp_path)
    be(tmp_path, "data", 2)
    assert build(tmp_path).totals["rows_in"] == 1


def test_a_fenced_evaluation_publishes_nothing(tmp_path, be):
    out = tmp_path / "eval" / "step-00000001" / "fast.json"
    job = "evaluate-step-00000001-fast"
    begin(tmp_path, job, 1)
    begin(tmp_path, job, 2)
    be(tmp_path, job, 1)
    with pytest.raises(fence.Fenced):
        result.publish(out, {}, "", time.monotonic())
    assert not out.exists()
    be(tmp_path, job, 2)
    result.publish(out, {}, "", time.monotonic())
    assert out.exists()


def test_a_group_of_workers_is_replaced_by_the_next_and_fenced_by_an_attempt(tmp_path, be):
    begin(tmp_path, "train", 1)
    be(tmp_path, "train", 1)
    first = fence.Group.claim(tmp_path)
    assert first.look() is None and first.glance() is None
    second = fence.Group.claim(tmp_path)
    assert isinstance(first.look(), fence.GroupReplaced) and second.look() is None
    assert "group 1" in str(first.glance()), "what was found once is told at every step"
    begin(tmp_path, "train", 2)
    be(tmp_path, "train", 2)
    third = fence.Group.claim(tmp_path)
    assert isinstance(second.look(), fence.Fenced) and third.look() is None
    be(tmp_path, "train", 1)
    with pytest.raises(fence.Fenced):
        fence.Group.claim(tmp_path)
    assert third.look() is None, "a group of an attempt that is over takes nothing from it"


def test_looks_in_every_step_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    looks = []
    clock = iter(number / 10 for number in range(10_000))
    monkeypatch.setattr(fence.time, "monotonic", lambda: next(clock))  # every look at it takes 0.1 s
    monkeypatch.setattr(fence.Group, "look", lambda group: looks.append(group))
    group = fence.Group(tmp_path, fence.Identity(tmp_path, "train", 0), 1)
    for _ in range(1000):
        group.glance()
    assert 5 <= len(looks) <= 1000 * 0.1 / (0.1 / fence.SHARE) + 2
