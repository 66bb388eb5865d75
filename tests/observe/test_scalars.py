from __future__ import annotations

import shutil

from headrace.observe.scalars import Handed, Unwritten, result_scalars


def test_new_steps_and_results_with_their_names_and_times(run):
    run.start(time=1000.0)
    run.steps(1, 3)
    run.result(2, bits=2.0)
    unwritten = Unwritten(run.path, Handed())
    steps, results = unwritten.look()
    assert [(point.step, point.time) for point in steps] == [(1, 1002.0), (2, 1004.0), (3, 1006.0)]  # 2 s a step
    assert steps[1].scalars["train/loss"] == 4.0 and "train/mfu" not in steps[1].scalars
    (result,) = results
    assert (result.step, result.scalars["evaluate/bits_per_byte/mill"], result.scalars["evaluate/validation_loss"]) == (2, 2.0, 4.0)
    assert unwritten.look() == ([], [])
    run.steps(4, 4)
    assert [point.step for point in unwritten.look()[0]] == [4]


def test_what_was_handed_over_before_is_left_out(run):
    run.steps(1, 5)
    run.result(2)
    run.result(4)
    steps, results = Unwritten(run.path, Handed(3, {"step-00000002/fast"})).look()
    assert [point.step for point in steps] == [4, 5] and [point.step for point in results] == [4]


def test_steps_that_are_taken_again_come_again(run):
    run.steps(1, 5)
    unwritten = Unwritten(run.path, Handed())
    unwritten.look()
    run.cut(2)
    run.steps(3, 4)
    assert [point.step for point in unwritten.look()[0]][-2:] == [3, 4]


def test_a_result_that_was_forgotten_comes_again(run):
    unwritten = Unwritten(run.path, Handed())
    run.result(2)
    unwritten.look()
    shutil.rmtree(run.path / "eval")
    unwritten.look()
    run.result(2)
    assert len(unwritten.look()[1]) == 1


def test_scores_of_a_benchmark_tell_its_parts_apart_and_a_failure_has_none():
    rows = [{"metric": "bits_per_byte", "source": "arc", "items": part, "value": value} for part, value in (("all", 1.5), ("clean", 1.75))]
    assert result_scalars({"metrics": [*rows, {"metric": "x", "source": "arc", "items": "all", "value": None}]}) == {
        "benchmarks/bits_per_byte/arc/all": 1.5,
        "benchmarks/bits_per_byte/arc/clean": 1.75,
    }
    assert result_scalars({"status": "failed", "reason": "it broke"}) == {}
