"""Attempts on storage, and what is made of how one ended."""

from __future__ import annotations

import threading

import pytest

from headrace.control import attempts
from headrace.control.attempts import Ending, GivenUp, History
from headrace.control.jobs import Job, State
from headrace.fence import attempts_folder

JOB = Job("data", "curate_corpus.py", ("run",), {})
TOLD = {"exit_code": 1, "message": "it broke", "type": "ValueError"}


def ended(**about):
    return State("s", "data", 1, **{"status": "FAILED", "exit_code": None, "message": "", **about})


def made(number=1, previous=None, failed=0, cluster="here"):
    return attempts.new_attempt(JOB, number, f"data-a{number}", cluster, 1000.0, previous, failed)


def test_what_was_made_is_read_back(tmp_path):
    ending = Ending("infrastructure", 137, "killed")
    assert attempts.history(tmp_path, "data", History()) == History()
    first, second = made(), made(2, ending, failed=1)
    assert attempts.begin(tmp_path, JOB, first) and attempts.begin(tmp_path, JOB, second)
    found = attempts.history(tmp_path, "data", History())
    assert found == History((first, second)) and found.newest == second
    end = GivenUp(ending, 1005.0)
    assert attempts.give_up(tmp_path, "data", 2, end)
    assert not attempts.give_up(tmp_path, "data", 2, GivenUp(ending, 1006.0)), "the first word counts"
    assert attempts.history(tmp_path, "data", found) == History((first, second), end)


def test_of_many_that_make_an_attempt_one_does(tmp_path):
    candidates = [made(cluster=str(number)) for number in range(8)]
    told = [False] * 8

    def begin(number):
        told[number] = attempts.begin(tmp_path, JOB, candidates[number])

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(told) == 1
    assert attempts.history(tmp_path, "data", History()).attempts == (candidates[told.index(True)],)
    assert [path.name for path in attempts_folder(tmp_path, "data").iterdir()] == ["1.json"]


def test_the_wait_doubles_up_to_a_limit_and_differs_by_name():
    waits = [attempts.backoff("train", 2, failed) for failed in range(1, 12)]
    assert waits == sorted(waits) and waits[0] < 4 and waits[-1] == waits[-2] <= 1.25 * attempts.LONGEST_BACKOFF_S
    assert waits == [attempts.backoff("train", 2, failed) for failed in range(1, 12)], "of two controllers each names the same time"
    assert len({attempts.backoff(f"evaluate-{number}", 2, 1) for number in range(20)}) == 20


@pytest.mark.parametrize(
    "about, error, entered, kind",
    [
        ({"status": "STOPPED"}, None, True, "uncounted"),
        ({"exit_code": 1}, TOLD, True, "user"),
        ({"exit_code": 2}, {**TOLD, "exit_code": 2, "type": "ConfigError"}, True, "final"),
        ({"exit_code": 3}, {**TOLD, "exit_code": 3, "type": "QualityGateError"}, True, "final"),
        ({"exit_code": 75}, {**TOLD, "exit_code": 75, "type": "OSError"}, True, "final"),
        ({"exit_code": 1}, {**TOLD, "type": "StageError"}, True, "final"),
        ({"exit_code": 1}, {**TOLD, "type": "Drained"}, True, "infrastructure"),
        ({"exit_code": 137}, None, True, "infrastructure"),
        ({"exit_code": -9}, None, False, "infrastructure"),
        ({"error_type": "JOB_SUPERVISOR_ACTOR_DIED"}, None, True, "infrastructure"),
        ({"error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"}, None, False, "infrastructure"),
        ({"exit_code": 1}, None, True, "infrastructure"),  # as Ray's own library ends a process whose node is gone
        ({"exit_code": 1}, None, False, "user"),  # it cannot even be imported
        ({"error_type": "RUNTIME_ENV_SETUP_FAILURE"}, None, False, "user"),
        ({"status": "SUCCEEDED", "exit_code": 0}, None, True, "infrastructure"),
    ],
)
def test_how_an_end_is_understood(about, error, entered, kind):
    ending = attempts.classify(ended(**about), error, entered)
    assert ending.kind == kind
    assert ending.message


def test_only_an_end_without_an_exit_code_is_in_doubt():
    assert attempts.is_in_doubt(ended(error_type="JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE"))
    assert attempts.is_in_doubt(ended(error_type="JOB_SUPERVISOR_ACTOR_DIED"))
    assert not attempts.is_in_doubt(ended(error_type="JOB_ENTRYPOINT_COMMAND_ERROR", exit_code=1))
    assert not attempts.is_in_doubt(ended(error_type="RUNTIME_ENV_SETUP_FAILURE"))
    assert not attempts.is_in_doubt(ended(status="STOPPED"))
