import math

import pytest

from headrace.report.training import training


def test_no_training_yet(folder):
    assert training(folder.path) is None


def test_totals(folder):
    folder.trained(steps=20)
    found = training(folder.path)
    assert (found["steps"], found["tokens"], found["first_loss"], found["last_loss"]) == (20, 2000, 6.0, 0.3)
    assert found["seconds"] == pytest.approx(40.0)  # 2000 tokens at 50 a second
    assert found["data_wait_share"] == pytest.approx(20 * 0.001 / 40)
    assert found["mfu"] is None
    assert len(found["curve"]) == 20


def test_a_long_run_is_thinned_to_means(folder):
    rows = [{"step": k, "loss": float(k % 4), "lr": 1.0, "grad_norm": 1.0, "tokens": k, "tokens_per_s": 1.0} for k in range(1, 1201)]
    folder.lines("train/metrics.jsonl", rows)
    curve = training(folder.path)["curve"]
    assert len(curve) == 300
    assert curve[-1]["step"] == 1200
    assert {(point["loss"], point["loss_min"], point["loss_max"]) for point in curve} == {(1.5, 0.0, 3.0)}


def test_a_diverged_step_is_named_and_left_out_of_the_means(folder):
    folder.lines("train/metrics.jsonl", [{"step": 1, "loss": 2.0, "grad_norm": 1.0}, {"step": 2, "loss": math.nan, "grad_norm": 1.0}])
    found = training(folder.path)
    assert found["not_finite"] == [2]
    assert found["last_loss"] is None
    assert found["seconds"] is None


def test_a_resumed_run_counts_only_its_own_steps_and_says_where_it_resumed(folder):
    folder.lines("train/metrics.jsonl", [{"step": 11, "loss": 1.0, "grad_norm": 1.0, "tokens": 1100, "tokens_per_s": 50.0}])
    folder.lines("train/workers.jsonl", [{"restored_step": None, "start_seconds": {}}, {"restored_step": 10, "start_seconds": {}}])
    found = training(folder.path)
    assert found["seconds"] == pytest.approx(2.0)
    assert (found["starts"], found["resumed_from"]) == (2, [10])


def test_a_torn_last_line_is_passed_over(folder):
    folder.trained(steps=3)
    with (folder.path / "train/metrics.jsonl").open("a") as handle:
        handle.write('{"step": 4, "lo')
    assert training(folder.path)["steps"] == 3


def test_skipped_steps_incidents_and_the_cost_of_checkpoints(folder):
    rows = [{"step": k, "loss": 2.0, "grad_norm": 1.0, "tokens": 100 * k, "tokens_per_s": 50.0} for k in (1, 2)]
    folder.lines("train/metrics.jsonl", [*rows, {"step": 3, "loss": math.nan, "grad_norm": 1.0, "skipped": "not finite"}])
    folder.lines("train/checkpoints.jsonl", [{"step": 2, "stall_s": 0.03, "waited_s": 0.01, "written_s": 1.0, "every": 2}])
    folder.lines("train/incidents.jsonl", [{"time": 0.0, "event": "skip", "message": "step 3 was not taken"}])
    found = training(folder.path)
    assert (found["skipped"], found["not_finite"]) == (1, [])
    assert found["checkpoints"] == {"written": 1, "stall_seconds": pytest.approx(0.04), "share": pytest.approx(0.01), "every": 2}
    assert [line["message"] for line in found["incidents"]] == ["step 3 was not taken"]
