from __future__ import annotations

import pytest

from headrace.observe.pace import Pace, clock, progress_line


def test_the_rate_is_that_of_the_last_minute():
    pace = Pace()
    assert pace.per_second is None and pace.left_s(100) is None
    for second in range(0, 201, 10):
        pace.at(second, second if second <= 100 else 100 + 5 * (second - 100))
    assert pace.per_second == pytest.approx(5.0)  # of late; it was 1 before
    assert pace.left_s(1100) == pytest.approx(100.0)


def test_a_count_that_went_back_starts_anew():
    pace = Pace()
    for now, done in ((0, 0), (10, 100), (20, 50), (30, 60)):
        pace.at(now, done)
    assert pace.per_second == pytest.approx(1.0)


def test_nothing_moved_means_no_rate():
    pace = Pace()
    pace.at(0, 5)
    pace.at(10, 5)
    assert pace.per_second is None and pace.left_s(10) is None


@pytest.mark.parametrize(
    "seconds, text", [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (90000, "1 d 1 h"), (None, "?")]
)
def test_a_time_that_is_left_in_words(seconds, text):
    assert clock(seconds) == text


def test_progress_in_words():
    units = {"phase": "read", "done": 3, "total": 40, "unit": "units", "documents_per_s": 1234.5, "bytes_per_s": 3_140_000, "left_s": 75.0}
    assert progress_line("ingest", units) == "ingest/read: 3 of 40 units, 3.1 MB/s, 1,234 documents/s, 1 min 15 s left"
    steps = {"done": 20, "total": 20, "unit": "steps", "loss": 2.5, "tokens": 4000, "tokens_per_s": 812.3, "left_s": 0.0}
    assert progress_line("train", steps) == "train: 20 of 20 steps, loss 2.500, 4,000 tokens, 812 tokens/s"
