"""The job that scores a checkpoint, for either suite, on a run's own folder."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path

from headrace import pipeline, storage
from headrace.checkpoint.write import Writer
from headrace.config import validate
from headrace.control.look import suites_of
from headrace.evaluate import watcher
from headrace.model.sequential import build_model
from headrace.run import RunConfig, resolved_yaml

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "evaluate_checkpoint.py"


def job():
    spec = importlib.util.spec_from_file_location("evaluate_checkpoint", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_checkpoint_is_scored_on_held_out_text_and_on_evaluation_sets(tmp_path, monkeypatch):
    rng = random.Random(1)
    texts = [" ".join(rng.choices(["mill", "river", "stone", "wheel", "miller", "water", "sings", "slowly"], k=60)) for _ in range(40)]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    questions = [" ".join(texts[0].split()[:20]), " ".join(["nothing of this is there"] * 4), "and no more of that one"]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps({"q": question}) + "\n" for question in questions))
    values = {
        "out": str(tmp_path / "run"),
        "sources": [{"name": "a", "kind": "prose", "path": str(tmp_path / "raw.jsonl"), "filters": []}],
        "dedup": {"document": None},
        "decontaminate": {"benchmarks": [{"name": "set", "path": str(tmp_path / "set.jsonl")}]},
        "split": {"validation": 0.3},
        "tokens": {"vocab_size": 330, "sequence_length": 16},
        "model": {"layers": 1, "hidden": 16, "heads": 2},
        "train": {"layout": {"data": 1}},
        "evaluate": {"max_tokens": 300, "benchmark_items": 2},
    }
    config = validate(RunConfig, values, "test")
    tokens = pipeline.curate(config, "local")
    (config.folder / "config.yaml").write_text(resolved_yaml(config))
    model = config.model.sized(tokens.totals["vocab_size"], 16)
    about = {"model": model.model_dump(mode="json"), "state": {"step": 5}, "config": {}, "layout": {}, "versions": {}}
    writer = Writer(config.folder / "train" / "checkpoints", 5)
    for name, parameter in build_model(model, seed=4).named_parameters():
        writer.add("model", name, parameter)
    checkpoint = writer.publish(about, tokens.folder / "tokenizer.json")
    owed = watcher.owed(config.folder, suites_of(config))
    assert [(folder, suite.name) for folder, suite in owed] == [(checkpoint, "fast"), (checkpoint, "benchmarks")]
    for folder, suite in owed:
        monkeypatch.setattr(sys, "argv", ["evaluate_checkpoint.py", str(config.folder), folder.name, suite.name])
        job().main(config.folder)
        assert watcher.is_scored(config.folder, checkpoint, suite)
    assert watcher.owed(config.folder, suites_of(config)) == []
    result = storage.read_json(watcher.result_path(config.folder, checkpoint.name, "benchmarks"))
    assert result["benchmarks"] == [{"name": "set", "items": 3, "contaminated": 1, "hit_rate": 1 / 3}]
    counts = {row["items"]: row["n_documents"] for row in result["metrics"] if row["metric"] == "bits_per_byte"}
    assert counts == {"all": 2, "clean": 2, "contaminated": 1}
