import math

import pytest

from headrace.config import ConfigError
from headrace.train.schedule import WSD, Cosine, duration, learning_rate


def rates(schedule: Cosine | WSD, steps: int) -> list[float]:
    return [learning_rate(schedule, 2.0, step, steps) / 2.0 for step in range(steps)]


def test_cosine() -> None:
    assert rates(Cosine(warmup=4, final=0.1), 9) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.868198, 0.55, 0.231802, 0.1], abs=1e-6)
    assert rates(Cosine(warmup=0, final=0.0), 3) == pytest.approx([1.0, 0.5, 0.0])


def test_wsd() -> None:
    linear = WSD(warmup=2, decay=4, shape="linear")
    assert rates(linear, 10) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    root = WSD(warmup=2, decay=4, shape="sqrt")  # 1 - sqrt(progress): Haegele et al. 2024, section 3
    assert rates(root, 10)[6:] == pytest.approx([1 - math.sqrt(x) for x in (0, 0.25, 0.5, 0.75)])


def test_wsd_before_its_decay_does_not_depend_on_the_length_of_the_run() -> None:
    schedule = WSD(warmup=10, decay=20)
    assert rates(schedule, 100)[:80] == rates(schedule, 1000)[:80]


def test_durations_are_steps_or_shares() -> None:
    assert [duration(value, 200) for value in (7, 0.1, 0)] == [7, 20, 0]
    assert rates(Cosine(warmup=0.1), 50) == rates(Cosine(warmup=5), 50)
    assert Cosine.model_validate({"warmup": 0.5}).warmup == 0.5
    with pytest.raises(ValueError):
        Cosine.model_validate({"warmup": 1.0})


@pytest.mark.parametrize("schedule", [Cosine(warmup=101), WSD(warmup=0.5, decay=60)])
def test_what_does_not_fit_is_refused(schedule: Cosine | WSD) -> None:
    with pytest.raises(ConfigError, match=r"train\.schedule\.warmup.* steps, more than train\.steps = 100; shorten it"):
        schedule.check(100)


@pytest.mark.parametrize("schedule", [Cosine(warmup=0), Cosine(warmup=1), Cosine(), WSD(warmup=0, decay=0), WSD(warmup=1, decay=0)])
def test_a_run_of_one_step_has_a_rate(schedule: Cosine | WSD) -> None:
    schedule.check(1)
    assert learning_rate(schedule, 1.0, 0, 1) == 1.0
