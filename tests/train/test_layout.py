import pytest

from headrace.config import ConfigError, validate
from headrace.train.layout import Layout


def test_a_layout_is_held_against_the_workers() -> None:
    assert Layout(data=2).data_size(2) == 2
    assert Layout(tensor=2, pipeline=3).data_size(12) == 2
    with pytest.raises(ConfigError, match="data 2 x tensor 1 x pipeline 1 does not make 3 workers; 2 are needed"):
        Layout(data=2).data_size(3)
    with pytest.raises(ConfigError, match="data any x tensor 2 x pipeline 2 does not make 6 workers; 4 or a multiple are needed"):
        Layout(tensor=2, pipeline=2).data_size(6)


def test_its_data_parallel_size_can_be_settled() -> None:
    settled = Layout(tensor=2, zero=3).with_data(4)
    assert (settled.data, settled.tensor, settled.zero, settled.replica) == (4, 2, 3, 2)


@pytest.mark.parametrize("values", [{"zero": 4}, {"tensor": 0}, {"pipe": 2}])
def test_what_is_no_layout_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml: (zero = 4|tensor = 0|pipe: unknown key; did you mean 'pipeline')"):
        validate(Layout, values, "f.yaml")
