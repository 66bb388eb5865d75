import json

import pytest

from headrace.report.clock import clock


def read(folder, stages=()):
    events = folder.path / "events.jsonl"
    found = clock(folder.path, [json.loads(line) for line in events.read_text().splitlines()] if events.is_file() else [], list(stages))
    return found, {row["row"]: row for row in found["rows"]}


def test_nothing_yet(folder):
    assert read(folder)[0] == {"total_seconds": None, "rows": [], "spans": []}


def test_a_job_is_parted_into_start_up_and_work(folder):
    folder.whole()
    found, rows = read(folder)
    assert found["total_seconds"] == pytest.approx(23)
    assert (rows["data"]["seconds"], rows["data"]["startup_seconds"]) == (pytest.approx(12), pytest.approx(5))
    assert (rows["ingest"]["seconds"], rows["ingest"]["peak_rss_bytes"]) == (pytest.approx(4), 5_000_000)
    assert rows["ingest"]["startup_seconds"] is None
    assert rows["cluster"]["share"] == pytest.approx(10 / 23)
    assert [row["row"] for row in found["rows"]] == ["cluster", "data", "ingest", "filters"]


def test_time_between_two_drivers_does_not_count(folder):
    folder.event(10, "cluster", "finished", seconds=10.0)
    folder.event(11, "train", "submitted", job="train-a1")
    folder.event(31, "evaluate", "submitted", job="evaluate-a1")  # the last that is heard of the first driver
    folder.event(1010, "cluster", "finished", seconds=8.0)
    folder.event(1011, "train", "submitted", job="train-a1")  # a new cluster counts attempts anew
    folder.event(1051, "train", "job finished", job="train-a1")
    found, rows = read(folder)
    assert found["total_seconds"] == pytest.approx(31 + 49)
    assert rows["train"]["runs"] == 2
    assert rows["train"]["seconds"] == pytest.approx(20 + 40)
    assert rows["evaluate"]["seconds"] == pytest.approx(0)
    assert all(0 <= span["begin"] <= span["work"] <= span["end"] <= found["total_seconds"] for span in found["spans"])


def test_a_failed_attempt_counts_too(folder):
    folder.event(0, "evaluate", "submitted", job="e-a1")
    folder.event(4, "evaluate", "failed", job="e-a1", message="killed")
    folder.event(5, "evaluate", "submitted", job="e-a2")
    folder.event(9, "evaluate", "job finished", job="e-a2")
    _, rows = read(folder)
    assert (rows["evaluate"]["runs"], rows["evaluate"]["seconds"]) == (2, pytest.approx(8))


def test_a_stage_without_events_is_timed_by_its_units(folder):
    folder.data()
    units = [
        {"phase": "p", "unit": "u0", "seconds": 1.5, "peak_rss_bytes": 10},
        {"phase": "p", "unit": "u1", "seconds": 2.0, "peak_rss_bytes": 30},
    ]
    folder.lines("data/filters/bbbb/timings.jsonl", units)
    _, rows = read(folder, [{"stage": "filters", "fingerprint": "bbbb"}, {"stage": "split", "fingerprint": "cccc"}])
    assert (rows["filters"]["seconds"], rows["filters"]["peak_rss_bytes"]) == (3.5, 30)
    assert rows["split"]["seconds"] is None


def test_scoring_jobs_leave_their_memory_in_their_results(folder):
    for step, peak in ((10, 5), (20, 9)):
        folder.json(f"eval/step-{step:08d}/fast.json", {"suite": "fast", "peak_rss_bytes": peak})
    folder.event(0, "evaluate", "submitted", job="e-a1")
    folder.event(4, "evaluate", "job finished", job="e-a1")
    assert read(folder)[1]["evaluate"]["peak_rss_bytes"] == 9
