from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.checkpoint.write import Writer
from headrace.config import ConfigError, validate
from headrace.run import RunConfig
from headrace.train.spec import TrainSpec, train_spec, training_done


@pytest.fixture
def spec(tmp_path: Path, lab: Any) -> TrainSpec:
    lab.write_tokens(tmp_path / "tokens")
    return TrainSpec.read(lab.spec(tmp_path, "run"))


def write_checkpoint(spec: TrainSpec, step: int) -> Path:
    writer = Writer(spec.checkpoints, step)
    writer.add("model", "embed.weight", torch.zeros(2))
    about = {"model": {}, "state": {"step": step}, "config": spec.fixed("0" * 16), "layout": {}, "versions": {}}
    return writer.publish(about, spec.tokens / "tokenizer.json")


def test_it_travels_in_plain_values(spec: TrainSpec) -> None:
    assert TrainSpec.read(spec.plain()) == spec
    with pytest.raises(ConfigError, match="training specification: trian: unknown key; did you mean 'train'"):
        TrainSpec.read({**spec.plain(), "trian": {}})


def test_training_is_done_when_the_last_step_s_checkpoint_is_whole(spec: TrainSpec) -> None:
    assert not training_done(spec.plain())
    write_checkpoint(spec, 3)
    assert not training_done(spec.plain())
    last = write_checkpoint(spec, 6)
    assert training_done(spec.plain())
    (last / "model.safetensors").write_bytes(b"torn")
    assert not training_done(spec.plain())


@pytest.mark.parametrize(
    ("part", "values", "refusal"),
    [
        ("seed", 8, "seed = 8, but 7 so far"),
        ("model", {"layers": 3, "hidden": 32, "heads": 4, "kv_heads": 2, "mlp": 34}, "model.layers = 3, but 2 so far"),
        ("mixture", {"a": 1.0, "b": 1.0}, "mixture.b = 1.0, but 2.0 so far"),
        ("mixture", {"a": 1.0, "b": 2.0, "c": 1.0}, "mixture.c = 1.0, but None so far"),
    ],
)
def test_what_changes_the_numbers_is_refused(spec: TrainSpec, part: str, values: Any, refusal: str) -> None:
    write_checkpoint(spec, 6)
    with pytest.raises(ConfigError, match=refusal):
        training_done({**spec.plain(), part: values})


def test_what_changes_no_number_is_let_through(spec: TrainSpec) -> None:
    write_checkpoint(spec, 6)
    values = spec.plain()
    values["train"] |= {"layout": {"zero": 3, "data": 2}, "checkpoint": {"every": 1, "keep": 9}, "threads": 2, "max_failures": 0}
    values["train"]["batch"]["micro"] = 1
    assert training_done({**values, "owed": ["fast"]})


def test_a_run_s_configuration_becomes_one(tmp_path: Path) -> None:
    sources = [{"name": name, "kind": "prose", "path": "x", "weight": weight} for name, weight in (("a", 1.0), ("b", 3.0))]
    config = validate(RunConfig, {"out": str(tmp_path / "run"), "seed": 3, "sources": sources, "train": {"steps": 9}}, "f.yaml")
    spec = TrainSpec.read(train_spec(config, tmp_path / "tokens"))
    assert spec.mixture == {"a": 1.0, "b": 3.0} and spec.seed == 3 and spec.train.steps == 9
    assert spec.run == tmp_path / "run" and spec.owed == ("fast",)
