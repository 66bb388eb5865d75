from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from headrace.config import Config, ConfigError, expand_environment, load_yaml, override, validate


class Cosine(Config):
    name: Literal["cosine"] = "cosine"
    warmup: int = 0


class Wsd(Config):
    name: Literal["wsd"] = "wsd"
    warmup: int = 0
    decay: float = 0.1


class Batch(Config):
    global_batch: int = Field(16, ge=1, alias="global")


class Run(Config):
    lr: float = 1e-3
    precision: Literal["fp32", "bf16"] = "fp32"
    batch: Batch = Batch()
    schedule: Annotated[Cosine | Wsd, Field(discriminator="name")] = Cosine()
    paths: tuple[str, ...] = ()


def test_every_mistake_is_reported_at_once_with_place_value_and_hint():
    values = {"lr": "fast", "precison": "fp32", "batch": {"global": 0, "globl": 3}, "schedule": {"name": "wsd", "dekay": 1}}
    with pytest.raises(ConfigError) as caught:
        validate(Run, values, "run.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert any(line.startswith("run.yaml: lr = 'fast': ") for line in lines)
    assert "run.yaml: precison: unknown key; did you mean 'precision'?" in lines
    assert any(line.startswith("run.yaml: batch.global = 0: ") for line in lines)
    assert "run.yaml: batch.globl: unknown key; did you mean 'global'?" in lines
    assert "run.yaml: schedule.wsd.dekay: unknown key; did you mean 'decay'?" in lines


def test_a_misspelt_choice_gets_the_nearest_one():
    with pytest.raises(ConfigError, match="did you mean 'bf16'"):
        validate(Run, {"precision": "bf61"}, "run.yaml")


def test_configuration_is_frozen():
    with pytest.raises(ValidationError):
        Run().lr = 2.0


def test_overrides_reach_into_mappings_and_lists_and_leave_the_original_alone():
    values = {"sources": [{"path": "a"}, {"path": "b"}], "train": {"steps": 1}}
    changed = override(values, ["sources.1.path=/data/*.jsonl.zst", "train.steps=500", "train.layout.zero=2", "sources.2.path=c"])
    assert changed["sources"] == [{"path": "a"}, {"path": "/data/*.jsonl.zst"}, {"path": "c"}]
    assert changed["train"] == {"steps": 500, "layout": {"zero": 2}}
    assert values == {"sources": [{"path": "a"}, {"path": "b"}], "train": {"steps": 1}}


def test_an_override_value_is_yaml_and_a_glob_is_text():
    changed = override({}, ["a=1e-3", "b=[1, 2]", "c=null", "d=*.jsonl", "e=true", "f="])
    assert changed["b"] == [1, 2]
    assert changed["c"] is None
    assert changed["d"] == "*.jsonl"
    assert changed["e"] is True
    assert changed["f"] is None
    assert float(changed["a"]) == 1e-3


@pytest.mark.parametrize("assignment", ["no-equals", "=value", "sources.7.path=x"])
def test_an_override_that_leads_nowhere_is_refused(assignment):
    with pytest.raises(ConfigError):
        override({"sources": [{"path": "a"}]}, [assignment])


def test_environment_with_and_without_default(monkeypatch):
    monkeypatch.setenv("HEADRACE_T", "/data")
    monkeypatch.delenv("HEADRACE_ABSENT", raising=False)
    found = expand_environment({"a": "${env:HEADRACE_T}/x", "b": ["${env:HEADRACE_ABSENT:-y}"], "c": 3})
    assert found == {"a": "/data/x", "b": ["y"], "c": 3}
    with pytest.raises(ConfigError, match=r"a\.b = .*HEADRACE_ABSENT is not set"):
        expand_environment({"a": {"b": "${env:HEADRACE_ABSENT}"}})


@pytest.mark.parametrize("content, says", [("a: [", "not valid YAML"), ("- 1", "expected a mapping"), (None, "no such file")])
def test_a_file_that_is_no_configuration(tmp_path, content, says):
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=says):
        load_yaml(path)
