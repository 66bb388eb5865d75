"""A run that starts from another's weights, or from a published model: its first step, its rate, its replay, its resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.batches import Loader, Order, with_replay
from headrace.checkpoint import Reader, load_model, read_manifest
from headrace.checkpoint.export import export_hugging_face
from headrace.checkpoint.write import Writer
from headrace.model.sequential import build_model
from headrace.tokens.store import TokenStore
from headrace.train.config import Start
from headrace.train.schedule import Cosine, learning_rate
from headrace.train.spec import TrainSpec
from headrace.train.start import resolve

FINGERPRINT = "0" * 16
LAST = "train/checkpoints/step-00000006"


def begin(folder: Path, lab: Any, name: str, checkpoint: str, replay: float = 0.0, **train: Any) -> dict[str, Any]:
    """Specification of a run that starts from there."""
    start = {"checkpoint": checkpoint, "replay": replay}
    spec: dict[str, Any] = lab.spec(folder, name, start=start, **train)
    return {**spec, "seed": 9, "start": resolve(Start(**start), folder / name).model_dump(mode="json")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, lab: Any, byte_tokenizer: Any) -> Path:
    """Runs that start from a checkpoint and from the model that is exported from it; one of them resumed when the checkpoint is gone."""
    folder: Path = tmp_path_factory.mktemp("continued")
    old = folder / "old"
    for tokens, seed, size in ((old / "data" / "tokens" / FINGERPRINT, 1, 97), (folder / "tokens", 2, 97), (folder / "unlike", 3, 96)):
        lab.write_tokens(tokens, seed)
        byte_tokenizer(size).save(str(tokens / "tokenizer.json"))
    export_hugging_face(write_checkpoint(TrainSpec.read(lab.spec(folder, "old"))), folder / "published")
    one = begin(folder, lab, "one", f"{old}@6", 0.25)
    later = {**one, "run": str(folder / "resumed"), "start": {**one["start"], "folder": str(folder / "gone" / "a" / "b" / "step-00000006")}}
    cases = [
        lab.case(one),
        lab.case(later, begin=folder / "one" / "train" / "checkpoints" / "step-00000003"),
        lab.case(begin(folder, lab, "from-run", str(old), steps=2)),
        lab.case(begin(folder, lab, "from-model", str(folder / "published"), steps=2)),
        lab.case({**begin(folder, lab, "unlike", str(old)), "tokens": str(folder / "unlike")}),
    ]
    lab.run(folder, 1, cases)
    lab.run(folder, 2, [lab.case(begin(folder, lab, "two", f"{old}@6", 0.25, layout={"data": 2}))])
    return folder


def write_checkpoint(spec: TrainSpec) -> Path:
    config = spec.model.sized(97, 16)
    writer = Writer(spec.checkpoints, 6)
    for name, weight in build_model(config, seed=5).named_weights():
        for kind in ("", "exp_avg/", "exp_avg_sq/"):
            writer.add("optimizer" if kind else "model", kind + name, weight.detach())
    state = {"step": 6, "tokens_fingerprint": FINGERPRINT}
    about = {"model": config.model_dump(mode="json"), "state": state, "config": spec.fixed(FINGERPRINT), "layout": {}, "versions": {}}
    return writer.publish(about, spec.run / "data" / "tokens" / FINGERPRINT / "tokenizer.json")


def test_it_begins_with_the_old_weights_and_without_the_old_moments(runs: Path) -> None:
    _, expected = load_model(runs / "old" / LAST)
    with Reader(runs / "one" / "train" / "checkpoints" / "step-00000000") as first:
        assert all(torch.equal(first.get(name), weight) for name, weight in expected.items())
        assert sorted(first.manifest["tensors"]) == sorted(expected)
        assert first.manifest["state"]["step"] == first.manifest["state"]["samples"] == 0


def test_its_rate_is_warmed_up_again(runs: Path, lab: Any) -> None:
    assert lab.column(runs / "one", "lr").tolist() == [learning_rate(Cosine(warmup=2), 1e-3, step, 6) for step in range(6)]
    assert lab.column(runs / "one", "lr")[:2].tolist() == [5e-4, 1e-3]


def test_its_first_loss_is_that_of_the_old_weights_on_both_runs_data(runs: Path, lab: Any) -> None:
    spec = TrainSpec.read(json.loads((runs / "one.json").read_text())["spec"])
    assert spec.start is not None
    store = TokenStore.open(spec.tokens)
    replay = spec.start.replay(0.25)
    assert replay is not None
    union, weights = with_replay(store, spec.mixture, replay)
    order = Order(spec.seed, {name: union.num_sequences(name, "train") for name in weights}, weights)
    config, tensors = load_model(runs / "old" / LAST)
    model = build_model(config, None)
    model.load_state_dict(tensors, strict=False)
    example = spec.objective.corrupt(torch.from_numpy(Loader(union, order, 12, 12, 0, 1).read(0)), store.eos)
    with torch.inference_mode():
        logits = model(example.tokens, example.aux)
        loss = torch.nn.functional.cross_entropy(logits[example.weights], example.targets[example.weights])
    assert loss.item() == pytest.approx(lab.column(runs / "one", "loss")[0], abs=1e-5)


def test_two_ranks_start_and_replay_as_one(runs: Path, lab: Any) -> None:
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(lab.column(runs / "two", name), lab.column(runs / "one", name), rtol=1e-4, atol=1e-5)


def test_a_resume_needs_the_old_data_but_not_the_old_weights(runs: Path, lab: Any) -> None:
    (_, once), (_, again) = load_model(runs / "one" / LAST), load_model(runs / "resumed" / LAST)
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert lab.column(runs / "resumed", "loss").tolist() == lab.column(runs / "one", "loss")[3:].tolist()


def test_a_published_model_starts_a_run_as_its_checkpoint_does(runs: Path, lab: Any) -> None:
    assert lab.column(runs / "from-model", "loss").tolist() == lab.column(runs / "from-run", "loss").tolist()


def test_another_tokenizer_is_refused_by_the_worker(runs: Path, lab: Any) -> None:
    refusal = lab.error(runs, "unlike")
    assert refusal["type"] == "ConfigError" and "its tokens are not those of train.start.checkpoint" in refusal["message"]


def test_its_checkpoints_record_the_start_by_its_content(runs: Path) -> None:
    recorded = read_manifest(runs / "one" / LAST)["config"]["train"]["start"]
    assert recorded["replay"] == 0.25 and len(recorded["digest"]) == 64 and "checkpoint" not in recorded
