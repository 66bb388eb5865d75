from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.config import ConfigError
from headrace.train.config import Spikes
from headrace.train.spikes import (
    History,
    TrainingDiverged,
    Window,
    batches_before,
    leave_out,
    left_out,
    rewind,
    verdict,
)

EIGHT = Spikes(window=8, patience=2, rewinds=2)


def history(losses: list[float], norms: list[float] | None = None, window: int = 8) -> History:
    known = History(window)
    for loss, norm in zip(losses, norms or [1.0] * len(losses)):
        known.taken(loss, norm)
    return known


def skipping(count: int) -> History:
    return History(8, skipped=count)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_skipped_from_the_first_step_on(loss: float) -> None:
    assert verdict(History(8), EIGHT, loss, 1.0) == "not finite"
    assert verdict(History(8), EIGHT, 1.0, loss) == "not finite"
    assert verdict(History(8), EIGHT.model_copy(update={"sigma": None}), 1.0, loss) == "not finite"


def test_a_spike_lies_more_than_six_standard_deviations_above_the_mean() -> None:
    known = history([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])  # mean 4.5, sample standard deviation sqrt(6)
    edge = 4.5 + 6 * math.sqrt(6)
    assert verdict(known, EIGHT, edge - 1e-9, 1.0) is None
    assert verdict(known, EIGHT, edge + 1e-9, 1.0) == "loss spike"
    assert verdict(known, EIGHT, -1000.0, 1.0) is None, "a loss that falls is no harm"
    assert verdict(known, EIGHT.model_copy(update={"sigma": 7.0}), edge + 1e-9, 1.0) is None
    assert verdict(known, EIGHT.model_copy(update={"sigma": None}), 1e9, 1e9) is None
    assert verdict(history([1.0] * 8, [1, 2, 3, 4, 5, 6, 7, 8]), EIGHT, 1.0, edge + 1e-9) == "gradient spike"


def test_nothing_finite_is_a_spike_before_half_a_window_is_known() -> None:
    assert verdict(history([1.0, 2.0, 1.0]), EIGHT, 1e9, 1e9) is None
    assert verdict(history([1.0, 2.0, 1.0, 2.0]), EIGHT, 1e9, 1.0) == "loss spike"


def test_a_flat_curve_s_rounding_is_no_spike() -> None:
    for value in (0.1, 1 / 3, 7.7):
        assert verdict(history([value] * 8, [value] * 8), EIGHT, value * (1 + 1e-7), value * (1 + 1e-7)) is None
        assert verdict(history([value] * 8, [value] * 8), EIGHT, value * 1.01, value) == "loss spike"


def test_a_history_holds_a_window_and_travels_in_plain_values() -> None:
    known = history([float(value) for value in range(20)])
    known.passed_over()
    assert known.losses == [12, 13, 14, 15, 16, 17, 18, 19] and len(known.grad_norms) == 8
    assert History.read(EIGHT, json.loads(json.dumps(known.plain()))) == known
    assert History.read(EIGHT, None) == History(8)
    shorter = History.read(EIGHT.model_copy(update={"window": 4}), known.plain())
    assert shorter.losses == [16, 17, 18, 19] and shorter.skipped == 1
    known.taken(20.0, 1.0)
    assert known.skipped == 0


def test_training_goes_back_after_as_many_skipped_steps_in_a_row_as_patience_allows() -> None:
    assert rewind((), EIGHT, skipping(1), 11, [4, 8]) is None
    found = rewind((), EIGHT, skipping(2), 12, [4, 8, 11])
    # Steps 10 and 11 were skipped; checkpoint 11 lies between them. Batches 8 to 11 are left out.
    assert found is not None and found.step == 8 and found.windows == (Window(step=8, batches=4),)
    assert [step + batches_before(found.windows, step) for step in (7, 8, 9)] == [7, 12, 13]


def test_training_that_came_from_the_newest_checkpoint_and_took_no_step_goes_back_further() -> None:
    first = rewind((), EIGHT, skipping(2), 10, [4, 8])
    assert first is not None and first.step == 8
    second = rewind(first.windows, EIGHT, skipping(2), 10, [4, 8])
    assert second is not None and second.step == 4
    assert [step + batches_before(second.windows, step) for step in (3, 4, 5, 8)] == [3, 12, 13, 16]
    alone = rewind(rewind_windows := (Window(step=0, batches=2),), EIGHT, skipping(2), 2, [])
    assert alone is not None and alone.step == 0 and alone.windows[:1] == rewind_windows


def test_after_its_last_rewind_a_run_fails_and_says_what_to_do() -> None:
    windows = (Window(step=8, batches=4), Window(step=8, batches=3))
    with pytest.raises(TrainingDiverged) as failure:
        rewind(windows, EIGHT, skipping(2), 12, [4, 8], "loss 9.1, gradient norm inf")
    told = str(failure.value)
    assert "optimizer step 12: the last 2 steps were skipped (loss 9.1, gradient norm inf)" in told
    assert "went back 2 times before, of 2 (train.spikes.rewinds)" in told
    assert "lower train.optimizer.lr or lengthen train.schedule.warmup" in told and "batches 17 to 18" in told
    with pytest.raises(TrainingDiverged, match="went back 0 times before, of 0"):
        rewind((), EIGHT.model_copy(update={"rewinds": 0}), skipping(2), 12, [8])


def run_with_spikes(
    bad: set[int], every: int, patience: int, rewinds: int, crashes: set[int], torn_rewinds: int
) -> tuple[list[list[int]], bool]:
    """What each course of a run of 30 steps reads (course by course, batch by batch) when every step on a `bad` batch is skipped.

    At a step in `crashes`, once, it starts again from its newest checkpoint and what is on disk; so it does in the first `torn_rewinds`
    rewinds, between the loss of the newer checkpoints and the window's publication. Whether it ended well.
    """
    policy, steps = Spikes(window=8, patience=patience, rewinds=rewinds), 30
    windows: tuple[Window, ...] = ()
    checkpoints: dict[int, dict[str, object]] = {0: History(8).plain()}
    known, step, courses, pending = History(8), 0, [[]], set(crashes)
    while step < steps:
        if step in pending:
            pending.discard(step)
            step = max(checkpoints)
            known = History.read(policy, checkpoints[step])
            courses[-1] = courses[-1][:step]
            continue
        batch = step + batches_before(windows, step)
        courses[-1].append(batch)
        step += 1
        if batch in bad:
            known.passed_over()
        else:
            known.taken(1.0, 1.0)
        try:
            found = rewind(windows, policy, known, step, checkpoints)
        except TrainingDiverged:
            return courses, False
        if found is not None:
            step = found.step
            checkpoints = {at: state for at, state in checkpoints.items() if at <= step}
            known = History.read(policy, checkpoints[step])
            if torn_rewinds:
                torn_rewinds -= 1
                courses[-1] = courses[-1][:step]
                continue
            windows = found.windows
            courses.append(courses[-1][:step])
        elif step % every == 0:
            checkpoints[step] = known.plain()
    return courses, True


TROUBLE = {
    "bad": st.sets(st.integers(0, 40), max_size=25),
    "every": st.integers(1, 7),
    "patience": st.integers(1, 4),
    "rewinds": st.integers(0, 3),
}


@settings(max_examples=300, deadline=None)
@given(**TROUBLE)
def test_a_rewound_run_reads_no_skipped_batch_again(bad: set[int], every: int, patience: int, rewinds: int) -> None:
    courses, _ = run_with_spikes(bad, every, patience, rewinds, set(), 0)
    for before, after in itertools.pairwise(courses):
        kept = next((at for at, (one, other) in enumerate(zip(before, after)) if one != other), min(len(before), len(after)))
        assert not set(before[kept:]) & set(after), "what a rewind left out is read again"
        assert after == sorted(set(after)), "no batch twice, none out of order"
        if len(after) > kept:
            assert after[kept] == before[-1] + 1, "the next batch is the first that was never read"


@settings(max_examples=300, deadline=None)
@given(**TROUBLE, crashes=st.sets(st.integers(1, 29), max_size=4), torn=st.integers(0, 2))
def test_a_run_that_crashes_reads_what_an_unbroken_one_reads(
    bad: set[int], every: int, patience: int, rewinds: int, crashes: set[int], torn: int
) -> None:
    unbroken = run_with_spikes(bad, every, patience, rewinds, set(), 0)
    assert run_with_spikes(bad, every, patience, rewinds, crashes, torn) == unbroken


@given(
    st.lists(st.builds(Window, step=st.integers(0, 20), batches=st.integers(1, 9)), max_size=5),
    st.integers(0, 40),
)
def test_later_steps_read_later_batches_whatever_the_windows(windows: list[Window], step: int) -> None:
    assert step + 1 + batches_before(windows, step + 1) > step + batches_before(windows, step)


def test_windows_are_kept_in_a_file(tmp_path: Path) -> None:
    assert left_out(tmp_path) == ()
    windows = (Window(step=3, batches=4), Window(step=1, batches=9))
    leave_out(tmp_path, windows)
    assert json.loads((tmp_path / "train/skipped.json").read_text()) == {"windows": [{"batches": 4, "step": 3}, {"batches": 9, "step": 1}]}
    assert left_out(tmp_path) == windows
    for damage in ('{"windows": [{"step": 3}]}', '{"windows'):
        (tmp_path / "train/skipped.json").write_text(damage)
        with pytest.raises(ConfigError, match=r"skipped\.json"):
            left_out(tmp_path)
