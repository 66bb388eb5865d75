from __future__ import annotations

import pytest

from headrace import storage
from headrace.events import event_log, mistakes


def test_an_event_is_a_line_with_its_time_stage_and_fields(tmp_path):
    event = event_log(tmp_path)
    event("ingest", "started", fingerprint="aaaa")
    event("train", "checkpoint", step=10, bytes=1000, stall_s=0.1, waited_s=0.0, written_s=0.5)
    first, second = storage.read_lines(tmp_path / "events.jsonl")
    assert (first["stage"], first["event"], first["fingerprint"]) == ("ingest", "started", "aaaa")
    assert second["time"] >= first["time"]
    assert mistakes(first) == mistakes(second) == []


@pytest.mark.parametrize(
    "event, wrong",
    [
        ({"event": "began"}, "event = 'began': not one of started"),
        ({"event": "started"}, "fingerprint: absent"),
        ({"event": "started", "fingerprint": 7}, "fingerprint = 7: expected str"),
        ({"event": "started", "fingerprint": "a", "colour": "red"}, "colour: no field of 'started'"),
        ({"event": "failed", "job": "a", "exit_code": True, "message": ""}, "exit_code = True: expected int or NoneType"),
    ],
)
def test_a_departure_from_the_schema_is_named(event, wrong):
    (found,) = mistakes({"time": 1.0, "stage": "train", **event})
    assert found.startswith(wrong)
