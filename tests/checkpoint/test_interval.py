import pytest

from headrace.checkpoint.interval import daly, interval, lost_share, young


@pytest.mark.parametrize("mtbf, minutes", [(24 * 60, 117), (6 * 60, 57), (15, 9.1)])
def test_the_optimum_is_the_published_one(mtbf: float, minutes: float) -> None:  # Daly 2006, figures 3 to 5: cost of 5 minutes
    assert daly(5 * 60, mtbf * 60) == pytest.approx(minutes * 60, rel=0.006)


def test_by_hand() -> None:
    # A day between failures, 3 s a checkpoint: sqrt(2 * 3 * 86400) = sqrt(518400) = 720 exactly.
    assert young(3, 86400) == 720.0
    # 3 / (2 * 86400) = 1/57600, whose root is 1/240: 720 * (1 + 1/720 + 1/518400) - 3 = 720 + 1 + 1/720 - 3.
    assert daly(3, 86400) == pytest.approx(718 + 1 / 720, abs=1e-9)
    # Cost of half the time between failures: the root of 1/4 is 1/2, so 1 * (1 + 1/6 + 1/36) - 1/2 times that time.
    assert daly(50, 100) == pytest.approx(100 * (1 + 1 / 6 + 1 / 36) - 50)
    assert daly(200, 100) == daly(1000, 100) == 100.0, "beyond twice the time between failures it is that time"
    assert young(0, 86400) == daly(0, 86400) == 0.0


def test_the_share_lost_by_hand() -> None:
    # e^0.1 - 1 = 0.1051709: 90 s of work take 1000 * 0.1051709 = 105.1709 s.
    assert lost_share(90, 10, 1000, 0) == pytest.approx(1 - 90 / 105.1709, abs=1e-6)
    # A restart of 20 s makes each e^0.02 = 1.0202013 times as long.
    assert lost_share(90, 10, 1000, 20) == pytest.approx(1 - 90 / (105.1709 * 1.0202013), abs=1e-6)
    assert lost_share(1e6, 1, 1, 0) == 1.0 and lost_share(1, 1, 1, 1e6) == 1.0, "where next to nothing is ever finished"


@pytest.mark.parametrize("mtbf", [600.0, 3600.0, 86400.0])
@pytest.mark.parametrize("cost", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("restart", [0.0, 60.0])
def test_no_other_interval_loses_less(cost: float, mtbf: float, restart: float) -> None:
    """Equation 20 is an expansion of the minimum of what is lost; searched for on a grid of 0.1 %."""
    grid = [daly(cost, mtbf) * 1.001**power for power in range(-800, 800)]
    best = min(grid, key=lambda work: lost_share(work, cost, mtbf, restart))
    assert daly(cost, mtbf) == pytest.approx(best, rel=0.003)


def test_whole_steps_that_leave_time_to_write() -> None:
    found = interval(cost_s=3, written_s=20, step_s=7.0, mtbf_s=86400, restart_s=60)
    assert (found.steps, found.seconds) == (103, 721.0)  # 718.001 / 7 = 102.57
    assert found.lost == lost_share(721.0, 3, 86400, 60)
    assert interval(cost_s=3, written_s=20, step_s=2000.0, mtbf_s=86400, restart_s=60).steps == 1
    assert interval(cost_s=0.0, written_s=0.0, step_s=1.0, mtbf_s=86400, restart_s=60).steps == 1
    slow = interval(cost_s=3, written_s=1000, step_s=7.0, mtbf_s=86400, restart_s=60)
    assert slow.steps == 143, "the disk needs 142.9 steps"
    assert slow.lost > found.lost
