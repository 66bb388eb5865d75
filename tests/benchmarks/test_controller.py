"""The benchmark's simulation, small and on a worse day: whatever fails and whoever is killed, each artifact is committed once."""

from __future__ import annotations

import controller
from headrace import storage
from headrace.control.look import suites_of
from headrace.evaluate import watcher
from simulated_cluster import Rates

HARSH = Rates(no_answer=0.1, stale=0.15, refused_after=0.2, killed=0.15, failing=0.1, called_dead=0.15, cut_off=0.15, head_lost=0.002)


def test_two_controllers_that_are_killed_commit_everything_once(tmp_path, monkeypatch):
    monkeypatch.setattr(controller, "KILLED_EVERY", 8)
    outcomes = []
    for seed in range(3):
        config = controller.configured(tmp_path / str(seed), checkpoints=6)
        outcomes.append(controller.simulate(config, units=5, seed=seed, rates=HARSH))
        assert controller.breaches(config, outcomes[-1]) == []
        assert storage.names(config.folder / "train" / "pins") == []
        assert not watcher.owed(config.folder, suites_of(config))
    # That it was a bad day:
    assert sum(outcome.kills for outcome in outcomes) > 15
    assert sum(outcome.attempts for outcome in outcomes) > 3 * (2 * 6 + 3)
    assert sum(outcome.tally.refused for outcome in outcomes) > 0, "a job that was cut off came back and found itself fenced"


def test_an_evaluation_that_fails_for_good_is_recorded_and_the_run_goes_on(tmp_path):
    config = controller.configured(tmp_path, checkpoints=2)
    outcome = controller.simulate(config, units=2, seed=1, rates=Rates(0, 0, 0, killed=0, failing=1, called_dead=0, cut_off=0, head_lost=0))
    assert outcome.failed_results == 4
    recorded = storage.read_json(watcher.result_path(config.folder, "step-00000002", "fast"))
    assert (recorded["status"], recorded["reason"], recorded["attempts"]) == ("failed", "it does not like this checkpoint", 2)


def test_what_is_committed_twice_is_found(tmp_path):
    config = controller.configured(tmp_path, checkpoints=2)
    outcome = controller.simulate(config, units=2, seed=2, rates=Rates(0, 0, 0, 0, 0, 0, 0, 0))
    assert controller.breaches(config, outcome) == []
    outcome.tally.commits["tokens"] += 1
    outcome.tally.doubled += 1
    assert len(controller.breaches(config, outcome)) == 2
