"""The same numbers whatever the ZeRO stage, the number of ranks, the launcher and the interruptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.batches import Loader, Order
from headrace.checkpoint import Reader, load_model, read_manifest, verify
from headrace.model import build_model
from headrace.tokens.store import TokenStore
from headrace.train.spec import TrainSpec

STEPS = 6
FP32 = [f"z{zero}" for zero in range(4)]
BF16 = [f"bf16-z{zero}" for zero in range(4)]
RESUMED = {"z0": (0, 2), "z1": (1, 0), "z2": (2, 3), "z3": (3, 1)}  # from step 3 of that run -> stages of the runs that go on
RESUMED_BF16 = {"bf16-z0": 0, "bf16-z1": 1, "bf16-z2": 2, "bf16-z3": 3}
CHECKPOINT = Path("train/checkpoints/step-00000003")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, lab: Any) -> Path:
    """Every case, run once: two ranks at each stage, resumes of each, and the one-rank run that they are held against."""
    folder: Path = tmp_path_factory.mktemp("parity")
    lab.write_tokens(folder / "tokens")

    def case(name: str, zero: int, begin: str | None = None, **train: Any) -> Any:
        return lab.case(lab.spec(folder, name, layout={"zero": zero}, **train), begin and folder / begin / CHECKPOINT)

    lab.run(
        folder,
        2,
        [case(name, zero) for zero, name in enumerate(FP32)]
        + [case(name, zero, precision="bf16") for zero, name in enumerate(BF16)]
        + [case(f"{name}-to-z{zero}", zero, name) for name, stages in RESUMED.items() for zero in stages]
        + [case(f"{name}-resumed", zero, name, precision="bf16") for name, zero in RESUMED_BF16.items()]
        + [lab.case(lab.spec(folder, "full-disk", layout={"zero": 2}), folder / "z2" / CHECKPOINT, file_limit=50_000)],
        torchrun=True,
    )
    # None of the tensors divides by three: ZeRO 3 pads each of them.
    lab.run(folder, 3, [case("z2-to-three", 3, "z2")])
    lab.run(folder, 1, [case("one", 0), case("z3-to-one", 1, "z3")])
    return folder


def final(run: Path) -> Path:
    return run / "train" / "checkpoints" / f"step-{STEPS:08d}"


def largest_difference(one: Path, other: Path) -> float:
    (_, ours), (_, theirs) = load_model(one), load_model(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


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
    for step, line in enumerate(lab.lines(runs / "one")):
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
    _, weights = load_model(final(runs / "one"))
    assert max(float((weights[name] - parameter).detach().abs().max()) for name, parameter in model.named_parameters()) < 1e-4


@pytest.mark.parametrize("name", FP32)
def test_two_ranks_at_any_stage_take_the_steps_of_one(runs: Path, lab: Any, name: str) -> None:
    assert lab.column(runs / name, "step").tolist() == list(range(1, STEPS + 1))
    assert lab.column(runs / "one", "grad_norm").min() > 0.5, "clipping is active in every step"
    np.testing.assert_allclose(lab.column(runs / name, "loss"), lab.column(runs / "one", "loss"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(lab.column(runs / name, "grad_norm"), lab.column(runs / "one", "grad_norm"), rtol=1e-4)
    assert largest_difference(final(runs / name), final(runs / "one")) < 1e-4
    assert largest_difference(final(runs / name), runs / name / "train/checkpoints/step-00000000") > 1e-3, "it learned something"


@pytest.mark.parametrize(
    ("name", "resumed"), [(name, f"{name}-to-{name}") for name in RESUMED] + [(name, f"{name}-resumed") for name in RESUMED_BF16]
)
def test_a_resume_in_the_same_layout_changes_no_bit(runs: Path, lab: Any, name: str, resumed: str) -> None:
    for figure in ("step", "loss", "grad_norm", "lr", "tokens"):
        assert lab.column(runs / resumed, figure).tolist() == lab.column(runs / name, figure)[3:].tolist()
    assert read_manifest(final(runs / resumed))["files"] == read_manifest(final(runs / name))["files"]


@pytest.mark.parametrize("name", [f"{name}-to-z{stages[1]}" for name, stages in RESUMED.items()] + ["z3-to-one", "z2-to-three"])
def test_a_resume_in_another_layout_goes_on_as_if_nothing_happened(runs: Path, lab: Any, name: str) -> None:
    np.testing.assert_allclose(lab.column(runs / name, "loss"), lab.column(runs / "one", "loss")[3:], rtol=0, atol=1e-5)
    np.testing.assert_allclose(lab.column(runs / name, "grad_norm"), lab.column(runs / "one", "grad_norm")[3:], rtol=1e-4)
    assert largest_difference(final(runs / name), final(runs / "one")) < 1e-4


@pytest.mark.parametrize("name", FP32 + BF16)
def test_a_checkpoint_holds_every_moment_whole(runs: Path, name: str) -> None:
    assert verify(final(runs / name)) == []
    with Reader(final(runs / name)) as reader, Reader(final(runs / "one")) as one:
        assert reader.manifest["tensors"].keys() == one.manifest["tensors"].keys()
        assert float(reader.get("step")) == STEPS
        for weight in reader.weights:
            assert reader.get(weight).dtype == torch.float32
            for state in ("exp_avg", "exp_avg_sq"):
                ours, theirs = reader.get(f"{state}/{weight}"), one.get(f"{state}/{weight}")
                close = 1e-5 if name in FP32 else 0.1
                assert float((ours - theirs).norm()) <= close * float(theirs.norm()), (weight, state)


@pytest.mark.parametrize("name", BF16)
def test_bf16_learns_the_same_to_its_precision(runs: Path, lab: Any, name: str) -> None:
    losses = lab.column(runs / name, "loss")
    np.testing.assert_allclose(losses, lab.column(runs / "one", "loss"), rtol=0, atol=2e-2)
    assert losses[-1] < losses[0]
    assert 0 < largest_difference(final(runs / name), final(runs / "one")) < 2e-3


def test_a_checkpoint_that_cannot_be_written_ends_every_rank_and_spares_the_one_before(runs: Path, lab: Any) -> None:
    lead, other = (lab.error(runs, "full-disk", rank) for rank in (0, 1))
    assert lead is not None and lead["type"] == "CheckpointFailed" and lead == other
    assert "step-00000006: could not be written: [Errno 27] File too large" in lead["message"]
    root = runs / "full-disk" / "train" / "checkpoints"
    assert [path.name for path in root.iterdir()] == [CHECKPOINT.name] and verify(root / CHECKPOINT.name) == []
    assert lab.column(runs / "full-disk", "step").tolist() == [4, 5, 6]


def test_every_start_is_on_record(runs: Path, lab: Any) -> None:
    (line,) = lab.lines(runs / "z1-to-z0", "workers.jsonl")
    assert line["restored_step"] == 3 and line["world"] == 2 and line["layout"]["zero"] == 0 and line["skipped_checkpoints"] == []
    assert set(line["start_seconds"]) == {"import", "init", "engine", "restore"}
    assert lab.lines(runs / "one", "workers.jsonl")[0]["restored_step"] is None
