"""The same numbers in any layout, at any precision's worth, from any launcher and across any resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.batches import Loader, Order
from headrace.checkpoint import Reader, load_model, read_manifest, verify
from headrace.model.compiled import compiler
from headrace.model.sequential import build_model
from headrace.tokens.store import TokenStore
from headrace.train.spec import TrainSpec

pytestmark = pytest.mark.timeout(1500)  # a hundred small runs make the fixture

STEPS = 10
MICRO = {1: 4, 2: 3, 3: 2}  # sequences, by data-parallel ranks: a step is accumulated over two or three micro-batches everywhere
CHECKPOINT = Path("train/checkpoints/step-00000005")
MODELS: dict[str, dict[str, Any]] = {
    "decoder": {},
    "tied": {"tied_embeddings": True},
    "encdec": {"architecture": "encoder_decoder", "encoder_layers": 2},
    "dropout": {"dropout": 0.1},
}
# Ranks -> layouts, each under a name that the runs are called by.
LAYOUTS: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "d2z0": {"zero": 0},
        "d2z1": {"zero": 1},
        "d2z2": {"zero": 2},
        "d2z3": {"zero": 3},
        "d2z1o": {"zero": 1, "offload": True},
        "d2z3o": {"zero": 3, "offload": True},
        "t2z0": {"tensor": 2, "zero": 0},
        "t2z1": {"tensor": 2, "zero": 1},
        "t2z2": {"tensor": 2, "zero": 2},
        "t2z3": {"tensor": 2, "zero": 3},
        "t2z1s": {"tensor": 2, "zero": 1, "sequence": True},
        "p2z0": {"pipeline": 2, "zero": 0},
        "p2z1": {"pipeline": 2, "zero": 1},
    },
    4: {
        "t2p2z0": {"tensor": 2, "pipeline": 2, "zero": 0},
        "t2p2z1s": {"tensor": 2, "pipeline": 2, "zero": 1, "sequence": True},
        "t2d2z1": {"tensor": 2, "zero": 1},
        "t2d2z2": {"tensor": 2, "zero": 2},
        "t2d2z3s": {"tensor": 2, "zero": 3, "sequence": True},
        "p2d2z0": {"pipeline": 2, "zero": 0},
        "p2d2z1": {"pipeline": 2, "zero": 1},
    },
}
FEWER = {"tied": ("d2z2", "t2z1", "p2z0", "p2z1", "t2p2z0"), "dropout": ("d2z2", "t2z1s", "p2z1", "t2p2z1s")}
CASES = [
    (model, layout, ranks)
    for model in MODELS
    for ranks, layouts in LAYOUTS.items()
    for layout in layouts
    if layout in FEWER.get(model, (layout,))
]
COMPILED = {("t2z1s", "selective"), ("p2z1", "block")}
RECOMPUTED = {("t2z1s", "selective"), ("p2z1", "block"), ("d2z3", "block")}
LOW = [("bf16", "d2z0"), ("bf16", "d2z1"), ("bf16", "d2z2"), ("bf16", "d2z3"), ("bf16", "t2z1"), ("bf16", "p2z1")]
LOW += [("fp16", "d2z1"), ("fp16", "d2z3"), ("fp16", "t2z2"), ("fp16", "p2z1")]
# Runs of these are gone on with from step 5 in all of them, at whatever number of ranks.
SET = {"one": (1, {"zero": 0}), "d2z3": (2, LAYOUTS[2]["d2z3"]), "t2z1": (2, LAYOUTS[2]["t2z1"]), "p2z1": (2, LAYOUTS[2]["p2z1"])}
SET["t2p2z0"] = (4, LAYOUTS[4]["t2p2z0"])
PAIRS = [(begun, then) for begun in SET for then in SET]
SAME = [(f"{precision}-{layout}", layout) for precision, layout in LOW] + [(f"decoder-{layout}", layout) for layout in LAYOUTS[2]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, lab: Any) -> Path:
    """Every case, run once, in one spawn of each number of ranks; then those that go on from others."""
    folder: Path = tmp_path_factory.mktemp("parity")
    lab.write_tokens(folder / "tokens")

    def case(name: str, ranks: int, layout: dict[str, Any], model: str = "decoder", begin: str | None = None, **train: Any) -> Any:
        data = ranks // (layout.get("tensor", 1) * layout.get("pipeline", 1))
        batch = {"global": 12, "micro": MICRO[data]}
        settings = {"steps": STEPS, "batch": batch, "checkpoint": {"every": 5}, "layout": layout, **train}
        return lab.case(lab.spec(folder, name, MODELS[model], **settings), begin and folder / begin / CHECKPOINT)

    def resumes(ranks: int) -> list[Any]:
        found = [
            case(f"{begun}-to-{then}", ranks, SET[then][1], begin="one-decoder" if begun == "one" else f"decoder-{begun}")
            for begun, then in PAIRS
            if SET[then][0] == ranks
        ]
        if ranks == 2:
            for name, layout in SAME:
                precision = name.split("-")[0]
                low = {} if precision == "decoder" else {"precision": precision}
                found.append(case(f"{name}-resumed", 2, LAYOUTS[2][layout], begin=name, **low))
        return found

    lab.run(folder, 1, [case(f"one-{model}", 1, {"zero": 0}, model) for model in MODELS])
    two = [case(f"{model}-{layout}", 2, LAYOUTS[2][layout], model) for model, layout, ranks in CASES if ranks == 2]
    two += [case(f"{layout}-{how}", 2, LAYOUTS[2][layout], activation_checkpointing=how) for layout, how in sorted(RECOMPUTED)]
    two += [case(f"{precision}-{layout}", 2, LAYOUTS[2][layout], precision=precision) for precision, layout in LOW]
    if compiler():
        for layout, how in sorted(COMPILED):
            two.append(case(f"{layout}-{how}-compiled", 2, LAYOUTS[2][layout], activation_checkpointing=how, compile=True))
    lab.run(folder, 2, two, torchrun=True)
    four = [case(f"{model}-{layout}", 4, LAYOUTS[4][layout], model) for model, layout, ranks in CASES if ranks == 4]
    lab.run(folder, 4, four + resumes(4))
    lab.run(folder, 2, resumes(2))
    lab.run(folder, 1, resumes(1))
    # None of the tensors divides by three: ZeRO 3 pads each of them. And of three workers two can share the matrices.
    elastic = {"num_workers": [1, 3]}
    lab.run(folder, 3, [case("to-three", 3, {"zero": 3}, begin="decoder-d2z2")])
    lab.run(folder, 3, [case("one-idle", 3, {"tensor": 2, "zero": 1}, begin="decoder-d2z2", **elastic)])
    return folder


def final(run: Path) -> Path:
    return run / "train" / "checkpoints" / f"step-{STEPS:08d}"


def largest_difference(one: Path, other: Path) -> float:
    (_, ours), (_, theirs) = load_model(one), load_model(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def same_course(runs: Path, lab: Any, run: str, oracle: str, first: int = 0) -> None:
    assert lab.column(runs / run, "step").tolist() == list(range(first + 1, STEPS + 1))
    np.testing.assert_allclose(lab.column(runs / run, "loss"), lab.column(runs / oracle, "loss")[first:], rtol=0, atol=1e-5)
    np.testing.assert_allclose(lab.column(runs / run, "grad_norm"), lab.column(runs / oracle, "grad_norm")[first:], rtol=1e-4)
    assert largest_difference(final(runs / run), final(runs / oracle)) < 1e-4


def test_one_rank_is_a_plain_torch_loop(runs: Path, lab: Any) -> None:
    """The oracle of all others: no engine, one pass over the whole batch, the loss as it is defined."""
    spec = TrainSpec.read(lab.spec(runs, "plain"))
    store = TokenStore.open(spec.tokens)
    model = build_model(spec.model.sized(store.vocab_size, store.sequence_length), spec.seed)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) is flag] for flag in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-6)
    counts = {name: store.num_sequences(name, "train") for name in store.sources}
    loader = Loader(store, Order(spec.seed, counts, spec.mixture), 12, 12, 0, 1)
    for step, line in enumerate(lab.lines(runs / "one-decoder")):
        example = spec.objective.corrupt(torch.from_numpy(loader.read(step)), store.eos)
        logits = model(example.tokens, example.aux)
        loss = torch.nn.functional.cross_entropy(logits[example.weights], example.targets[example.weights])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = line["lr"]
        optimizer.step()
        optimizer.zero_grad()
        assert loss.item() == pytest.approx(line["loss"], abs=1e-5)
        assert norm.item() == pytest.approx(line["grad_norm"], rel=1e-4)
    _, weights = load_model(final(runs / "one-decoder"))
    assert max(float((weights[name] - parameter).detach().abs().max()) for name, parameter in model.named_parameters()) < 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_clipping_is_active_and_something_is_learned(runs: Path, lab: Any, model: str) -> None:
    run = runs / f"one-{model}"
    assert lab.column(run, "grad_norm").min() > 0.5
    assert lab.column(run, "loss")[-1] < lab.column(run, "loss")[0]
    assert largest_difference(final(run), run / "train/checkpoints/step-00000000") > 1e-3


@pytest.mark.parametrize(("model", "layout"), [case[:2] for case in CASES])
def test_every_layout_takes_the_steps_of_one_rank(runs: Path, lab: Any, model: str, layout: str) -> None:
    same_course(runs, lab, f"{model}-{layout}", f"one-{model}")


@pytest.mark.parametrize(("layout", "how"), sorted(RECOMPUTED))
def test_what_is_computed_again_is_the_same(runs: Path, lab: Any, layout: str, how: str) -> None:
    same_course(runs, lab, f"{layout}-{how}", "one-decoder")


@pytest.mark.skipif(compiler() is None, reason="compiled blocks need a C++ compiler")
@pytest.mark.parametrize(("layout", "how"), sorted(COMPILED))
def test_compiled_blocks_take_the_same_steps(runs: Path, lab: Any, layout: str, how: str) -> None:
    same_course(runs, lab, f"{layout}-{how}-compiled", "one-decoder")


@pytest.mark.parametrize(("name", "layout"), SAME)
def test_a_resume_in_the_same_layout_changes_no_bit(runs: Path, lab: Any, name: str, layout: str) -> None:
    for figure in ("step", "loss", "grad_norm", "lr", "tokens"):
        assert lab.column(runs / f"{name}-resumed", figure).tolist() == lab.column(runs / name, figure)[5:].tolist()
    assert read_manifest(final(runs / f"{name}-resumed"))["files"] == read_manifest(final(runs / name))["files"]


@pytest.mark.parametrize(("begun", "then"), PAIRS)
def test_a_resume_in_another_layout_goes_on_as_if_nothing_happened(runs: Path, lab: Any, begun: str, then: str) -> None:
    same_course(runs, lab, f"{begun}-to-{then}", "one-decoder", first=5)


@pytest.mark.parametrize("name", [f"{begun}-to-{then}" for begun, then in PAIRS] + [f"{name}-resumed" for name, _ in SAME])
def test_what_was_read_of_a_checkpoint_is_what_would_be_written(runs: Path, name: str) -> None:
    """Weights and moments, tensor by tensor and bit for bit, over all ranks that keep any."""
    found = [json.loads(path.read_text()) for path in runs.glob(f"{name}.moments*.json")]
    with Reader(runs / name / CHECKPOINT) as reader:
        assert sorted(tensor for rank in found for tensor in rank["kept"]) == sorted(reader.manifest["tensors"])
    assert [tensor for rank in found for tensor in rank["other"]] == []


@pytest.mark.parametrize("name", [f"decoder-{layout}" for layouts in LAYOUTS.values() for layout in layouts])
def test_a_checkpoint_holds_every_moment_whole(runs: Path, name: str) -> None:
    assert verify(final(runs / name)) == []
    with Reader(final(runs / name)) as reader, Reader(final(runs / "one-decoder")) as one:
        assert reader.manifest["tensors"].keys() == one.manifest["tensors"].keys()
        assert float(reader.get("step")) == STEPS
        for weight in reader.weights:
            assert reader.get(weight).dtype == torch.float32
            for state in ("exp_avg", "exp_avg_sq"):
                ours, theirs = reader.get(f"{state}/{weight}"), one.get(f"{state}/{weight}")
                assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm()), (weight, state)


@pytest.mark.parametrize(("precision", "layout"), LOW)
def test_sixteen_bits_learn_the_same_to_their_precision(runs: Path, lab: Any, precision: str, layout: str) -> None:
    losses = lab.column(runs / f"{precision}-{layout}", "loss")
    np.testing.assert_allclose(losses, lab.column(runs / "one-decoder", "loss"), rtol=0, atol=2e-2)
    assert losses[-1] < losses[0]
    assert 0 < largest_difference(final(runs / f"{precision}-{layout}"), final(runs / "one-decoder")) < 3e-3


def test_three_ranks_go_on_where_two_began(runs: Path, lab: Any) -> None:
    same_course(runs, lab, "to-three", "one-decoder", first=5)


def test_a_worker_that_the_layout_has_no_use_for_waits(runs: Path, lab: Any) -> None:
    same_course(runs, lab, "one-idle", "one-decoder", first=5)
    (line,) = lab.lines(runs / "one-idle", "workers.jsonl")
    assert (line["world"], line["idle"], line["layout"]["data"]) == (2, 1, 1)


def test_every_start_is_on_record(runs: Path, lab: Any) -> None:
    (line,) = lab.lines(runs / "one-to-t2z1", "workers.jsonl")
    assert line["restored_step"] == 5 and line["world"] == 2 and line["layout"]["tensor"] == 2 and line["skipped_checkpoints"] == []
    assert set(line["start_seconds"]) == {"import", "init", "engine", "restore"}
    assert lab.lines(runs / "one-decoder", "workers.jsonl")[0]["restored_step"] is None
