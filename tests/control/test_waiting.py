"""What a cluster has no room for; the statuses are Ray's own, of a head whose autoscaler cannot start nodes of type spot."""

from __future__ import annotations

import pytest

from headrace.control import waiting
from headrace.control.waiting import Waiting, waiting_for

STATUS = """======== Autoscaler status: 2026-11-23 03:49:47.307798 ========
Node status
---------------------------------------------------------------
Active:
 1 head
Idle:
 (no idle nodes)
Pending:
 {pending}
Recent failures:
 {failures}

Resources
---------------------------------------------------------------
Total Usage:
 {usage}
 0B/20.80GiB memory
 733.21KiB/128.00MiB object_store_memory

From request_resources:
 (none)
Pending Demands:
 {demands}"""


def status(
    demands: str = "(no resource demands)", usage: str = "", pending: str = "(no pending nodes)", failures: str = "(no failures)"
) -> str:
    return STATUS.format(demands=demands, usage=usage, pending=pending, failures=failures)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, None),
        ({"demands": "{'CPU': 1.0}: 3+ pending tasks/actors", "usage": "2.0/2.0 CPU"}, None),  # busy: its turn comes
        ({"demands": "{'CPU': 1.0, 'data': 1.0}: 3+ pending tasks/actors", "usage": "2.0/2.0 CPU\n 2.0/2.0 data"}, None),
        ({"demands": "{'memory': 1000000.0, 'CPU': 1.0}: 1+ pending tasks/actors", "usage": "2.0/2.0 CPU"}, None),
        (
            {"demands": "{'evaluate': 1.0}: 1+ pending tasks/actors", "usage": "0.0/2.0 CPU"},
            "waiting for nodes: none has room for {'evaluate': 1.0}: 1+ pending tasks/actors; the cluster starts none for it",
        ),
        (
            {"demands": "{'CPU': 8.0}: 1+ pending tasks/actors", "usage": "0.0/2.0 CPU", "pending": "big, 1 launching"},
            "waiting for nodes: none has room for {'CPU': 8.0}: 1+ pending tasks/actors; on their way: big, 1 launching",
        ),
        (
            {
                "demands": "{'CPU': 1.0, 'train': 1.0} * 2 (PACK): 1+ pending placement groups",
                "failures": "spot: LaunchFailed (latest_attempt: 03:49:45)\n spot: LaunchFailed (latest_attempt: 03:49:44)",
            },
            "waiting for nodes: none has room for {'CPU': 1.0, 'train': 1.0} * 2 (PACK): 1+ pending placement groups; "
            "could not be started: spot: LaunchFailed",
        ),
    ],
)
def test_what_no_node_could_ever_serve_is_told(given: dict[str, str], said: str | None) -> None:
    assert waiting_for(status(**given)) == said


def test_a_text_of_another_kind_tells_nothing() -> None:
    assert waiting_for("") is None
    assert waiting_for("No cluster status. It may take a few seconds for the Ray internal services to start up.") is None
    assert waiting_for(status(demands="something else: 1+ pending tasks/actors")) is None


def test_it_is_said_once_and_again_when_it_changes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 0.0)
    wants = status("{'data': 1.0}: 1+ pending tasks/actors")
    answers = iter([wants, wants, status(), wants, ConnectionError(), wants])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    looking = Waiting(ask)
    told = []
    for _ in range(6):
        caplog.clear()
        looking.look()
        told.append(len(caplog.records))
    assert told == [1, 0, 0, 1, 0, 0]
