from __future__ import annotations

import pytest
from pydantic import ValidationError

from headrace.config import ConfigError, validate
from headrace.decontaminate.presets import PRESETS, Decontaminate

SETS = [{"name": "gsm8k", "path": "gsm8k.jsonl"}]


def config(**settings):
    return Decontaminate(benchmarks=SETS, **settings)


@pytest.mark.parametrize(
    "preset, expected",
    [
        ("drop-any-n", {"n": 13, "judge": "ngram", "action": "drop", "max_documents": None}),
        # Brown et al. 2020, arXiv:2005.14165, appendix C
        ("gpt3-cut", {"n": 13, "action": "cut", "margin_chars": 200, "min_piece_chars": 200, "max_pieces": 10, "max_documents": 10}),
        # Chowdhery et al. 2022, arXiv:2204.02311, section 8
        ("palm-ratio", {"n": 8, "judge": "item", "share": 0.7, "action": "drop"}),
        ("paragraph-ratio", {"n": 13, "judge": "paragraph", "share": 0.5, "action": "cut", "margin_chars": 0}),
    ],
)
def test_presets_are_the_published_rules(preset, expected):
    rules = config(preset=preset).rules()
    assert {name: rules[name] for name in expected} == expected


def test_what_is_given_overrides_the_preset_and_null_is_given_too():
    found = config(preset="gpt3-cut", n=8, max_documents=None)
    assert (found.n, found.max_documents, found.margin_chars) == (8, None, 200)


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_written_out_reads_back_equal(preset):
    found = config(preset=preset)
    assert Decontaminate.model_validate(found.model_dump(mode="json")) == found


def test_a_preset_that_is_spelled_out_has_equal_rules():
    explicit = {**config(preset="palm-ratio").rules()}
    assert config(preset="drop-any-n", **explicit).rules() == explicit


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"preset": "palm"}, "palm-ratio"),
        ({"n": 0}, "n = 0"),
        ({"share": 0.5}, "counts every n-gram and takes no share"),
        ({"judge": "item"}, "needs a share"),
        ({"margin_chars": 10}, "belong to action: cut"),
        ({"benchmarks": []}, "benchmarks"),
        ({"benchmarks": SETS * 2}, "gsm8k is the name of more than one"),
        ({"benchmarks": [{"name": "a b", "path": "x"}]}, "name"),
        ({"ngram": 13}, "unknown key"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        validate(Decontaminate, {"benchmarks": SETS, **wrong}, "test")


def test_it_is_frozen():
    with pytest.raises(ValidationError):
        config().n = 5
