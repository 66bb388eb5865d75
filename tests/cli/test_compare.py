"""Runs side by side, and the schema of a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from headrace.cli import app
from headrace.config import expand_environment, validate
from headrace.run import RunConfig, resolved_yaml
from headrace.storage import write_bytes, write_json

CONFIGS = Path(__file__).resolve().parents[2] / "jobs" / "configs"
RUNS = sorted(path for path in CONFIGS.glob("*.yaml") if "sources" in yaml.safe_load(path.read_text()))


def headrace(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def runs(tmp_path):
    """Two runs that differ in their seed and learning rate, scored at steps 20 and 40, and the second at 60, too."""
    found = []
    for name, seed, steps in (("a", 0, (20, 40)), ("b", 1, (20, 40, 60))):
        values = {
            "out": str(tmp_path / name),
            "seed": seed,
            "sources": [{"name": "mill", "kind": "prose", "path": "raw/*.jsonl"}],
            "train": {"steps": 60, "optimizer": {"lr": 0.001 * (seed + 1)}},
        }
        run = tmp_path / name
        write_bytes(run / "config.yaml", resolved_yaml(validate(RunConfig, values, "test")).encode())
        write_json(run / "data" / "current.json", {"tokenizer": "0" * 16})
        for step in steps:
            metrics = [
                {"metric": metric, "source": source, "value": value, "stderr": error, "ci95": None, "n_documents": 9}
                for metric, source, value, error in (
                    ("bits_per_byte", "all", 3.0 - step / 100 - seed * 0.1, 0.03),
                    ("bits_per_byte", "mill", 3.0 - seed * 0.01, 0.03),
                    ("token_perplexity", "all", 50.0, 1.0),
                )
            ]
            result = {"metrics": metrics, "validation_loss": 2.0, "scored_tokens": 100, "seconds": 1.0, "checkpoint_manifest_sha256": "0"}
            write_json(run / "eval" / f"step-{step:08d}" / "fast.json", result)
        found.append(run)
    return found


def test_what_differs_is_set_side_by_side(runs):
    found = json.loads(headrace("compare", *runs, "--json"))
    assert {row["key"]: (row["a"], row["b"]) for row in found["configuration"]} == {"seed": (0, 1), "train.optimizer.lr": (0.001, 0.002)}
    assert found["step"] == 40  # of which both have scores
    scores = {(row["metric"], row["source"]): row for row in found["scores"]}
    clear, unclear = scores["bits_per_byte", "all"], scores["bits_per_byte", "mill"]
    assert clear["difference"] == pytest.approx(-0.1) and clear["stderr"] == pytest.approx(0.03 * 2**0.5)
    assert (clear["clear"], unclear["clear"]) == (True, False)  # 0.1 and 0.01 against 1.96 * 0.0424
    assert ("token_perplexity", "all") in scores
    assert "beyond 95 %" in headrace("compare", *runs)


def test_between_tokenizers_only_bytes_compare(runs):
    write_json(runs[1] / "data" / "current.json", {"tokenizer": "1" * 16})
    found = json.loads(headrace("compare", *runs, "--json"))
    assert found["same_tokenizer"] is False
    assert {row["metric"] for row in found["scores"]} == {"bits_per_byte"}


def test_a_run_equals_itself(runs):
    found = json.loads(headrace("compare", runs[0], runs[0], "--json"))
    assert found["configuration"] == [] and {row["difference"] for row in found["scores"]} == {0.0}
    assert "configuration: the same" in headrace("compare", runs[0], runs[0])


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_the_schema_takes_what_is_shipped_and_no_other_key(path):
    schema = json.loads(headrace("config", "schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    values = expand_environment(yaml.safe_load(path.read_text()))
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError, match="sauces"):
        jsonschema.validate({**values, "sauces": []}, schema)
