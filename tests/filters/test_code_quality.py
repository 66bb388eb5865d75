import pyarrow as pa
import pytest

from headrace.filters.code_quality import CodeQuality
from headrace.filters.measures import measure


@pytest.mark.parametrize(
    "text, reason",
    [
        ("x = 1\n" * 20 + "y" * 1000 + "\n", None),
        ("x = 1\n" * 20 + "y" * 1001 + "\n", "line_too_long"),
        ("x = 1\n" * 20 + " " * 990 + "y = 1234567\n", "line_too_long"),  # the indent is part of a line of code
        ("z" * 100 + "\n" + "z" * 100 + "\n", None),
        ("z" * 101 + "\n" + "z" * 100 + "\n", "lines_too_long"),
        ("z" * 150 + "\n\n", None),  # a blank line is a line of code
        ("é" * 1000 + "\n" * 30, None),  # code points
        ("{}; " + "a", "too_few_alphanumerics"),  # 1 of 5
        ("{; " + "a", None),  # 1 of 4
        ("", "too_few_alphanumerics"),
    ],
)
def test_published_thresholds(text, reason):  # Chen et al. 2021, arXiv:2107.03374, 3.1; bigcode-dataset's "basic" filter
    rule = CodeQuality()
    found = rule.verdict(measure(pa.array([text]), rule.measures)).to_pylist()
    assert found == [reason and f"code_quality:{reason}"]
