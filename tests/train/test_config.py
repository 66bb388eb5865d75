import pytest

from headrace.config import ConfigError, validate
from headrace.train.config import TrainConfig
from headrace.train.schedule import WSD


def test_it_reads_the_names_of_the_yaml() -> None:
    config = validate(
        TrainConfig, {"batch": {"global": 64, "micro": 4}, "schedule": {"name": "wsd", "decay": 0.1}, "layout": {"zero": 3}}, "f.yaml"
    )
    assert (config.batch.global_batch, config.batch.micro_batch) == (64, 4)
    assert isinstance(config.schedule, WSD) and config.schedule.decay == 0.1
    assert config.accumulation_steps(2) == 8
    assert validate(TrainConfig, config.model_dump(mode="json", by_alias=True), "f.yaml") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layout": {"zero": 4}}, "f.yaml: layout.zero = 4: input should be less than or equal to 3"),
        ({"layout": {"tensr": 2}}, "f.yaml: layout.tensr: unknown key; did you mean 'tensor'?"),
        ({"layout": "atuo"}, "f.yaml: layout = 'atuo': input should be 'auto'; did you mean 'auto'?"),
        ({"num_workers": [4, 2]}, "num_workers = [4, 2]: the first is the fewest, the second the most"),
        ({"num_workers": 0}, "f.yaml: num_workers = 0: input should be greater than 0"),
        ({"checkpoint": {"every": "atuo"}}, "f.yaml: checkpoint.every = 'atuo': input should be 'auto'; did you mean 'auto'?"),
        (
            {"batch": {"global": 30, "micro": 4}, "layout": {"data": 2}},
            "train.batch.global = 30 is not a multiple of micro (4) x data-parallel size (2) = 8; the nearest that fits is 32.",
        ),
        ({"precision": "fp61"}, "f.yaml: precision = 'fp61'"),
        ({"schedule": {"name": "wsd", "warmup": 0.9, "decay": 0.5}}, "is 420 steps, more than train.steps = 300"),
        ({"optimizer": {"clip": 0}}, "f.yaml: optimizer.clip = 0"),
    ],
)
def test_mistakes_name_the_place_and_the_way_out(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        validate(TrainConfig, values, "f.yaml")
    assert message in str(refusal.value)


def test_a_layout_is_held_against_the_workers() -> None:
    layout = validate(TrainConfig, {"layout": {"data": 2}}, "f.yaml").layout
    assert layout.data_size(2) == 2
    with pytest.raises(ConfigError, match=r"data 2 x tensor 1 x pipeline 1 does not make 3 workers; 2 are needed"):
        layout.data_size(3)
