from __future__ import annotations

import time

import pytest

from headrace.evaluate.watcher import Suite
from headrace.observe.publish import TrainingMetrics


class Gauges(dict):
    def set(self, name, value, **labels):
        self[name, *labels.values()] = value


@pytest.fixture
def gauges():
    return Gauges()


def test_what_training_left_on_storage_is_set(run, gauges):
    metrics = TrainingMetrics(run.path, 20, [Suite("fast", {})], gauges)
    metrics.look()
    assert gauges["train_steps_planned",] == 20 and ("train_loss",) not in gauges
    run.start(time=time.time() - 100)
    run.steps(1, 4)
    run.incident("skip", "step 4 was not taken: spike")
    metrics.look()
    assert gauges["train_step",] == 4 and gauges["train_loss",] == 2.0 and gauges["train_tokens_per_second",] == 50.0
    assert gauges["train_data_wait_seconds",] == 0.25 and gauges["train_step_age_seconds",] < 10
    assert gauges["checkpoint_age_seconds",] == pytest.approx(100, abs=10), "there is none yet: since training began"
    assert gauges["train_incidents", "skip"] == 1


def test_the_age_of_the_newest_checkpoint_and_what_it_is_owed(run, gauges):
    suites = [Suite("fast", {}), Suite("benchmarks", {})]
    run.checkpoint(5, time=time.time() - 1000)
    run.checkpoint(10, time=time.time() - 50)
    run.result(5, bits=2.5)
    TrainingMetrics(run.path, 20, suites, gauges).look()
    assert gauges["checkpoint_step",] == 10 and gauges["checkpoint_age_seconds",] == pytest.approx(50, abs=10)
    assert gauges["checkpoint_stall_seconds",] == 0.75
    assert gauges["evaluation_backlog", "benchmarks"] == 2
    assert gauges["evaluation_bits_per_byte", "mill"] == 2.5 and gauges["evaluation_validation_loss",] == 5.0


def test_steps_that_a_resume_takes_again_are_counted_once(run, gauges):
    metrics = TrainingMetrics(run.path, 20, [], gauges)
    run.steps(1, 4, skipped="spike")
    metrics.look()
    assert gauges["train_skipped_steps",] == 4
    run.cut(2)
    run.steps(3, 3)
    metrics.look()
    assert gauges["train_step",] == 3 and gauges["train_skipped_steps",] == 2
