import pytest

from headrace.config import ConfigError, validate
from headrace.ingest.source import Source

WEB = {"name": "web", "kind": "web", "path": "data/*.jsonl"}


def test_defaults_and_patterns():
    source = validate(Source, WEB, "run.yaml")
    assert (source.format, source.text_field, source.filters, source.weight, source.priority) == ("auto", "text", None, 1.0, 0)
    assert source.patterns == ["data/*.jsonl"]
    assert validate(Source, {**WEB, "path": ["a", "b"]}, "run.yaml").patterns == ["a", "b"]
    assert validate(Source, {**WEB, "filters": [{"name": "gopher_quality"}]}, "run.yaml").filters


WRONG = [{"name": "Web pages"}, {"name": ""}, {"kind": "webb"}, {"path": ""}, {"path": []}, {"format": "csv"}, {"weight": 0}, {"pth": "x"}]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_mistakes_name_their_field(wrong):
    with pytest.raises(ConfigError, match=rf"run\.yaml: {next(iter(wrong))}"):
        validate(Source, {**WEB, **wrong}, "run.yaml")
