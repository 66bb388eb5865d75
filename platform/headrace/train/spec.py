"""What a worker is told: plain values that travel to every rank and stand in a file for torchrun; and what a resume may not change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifact import Artifact
from headrace.checkpoint import committed, read_manifest, verify
from headrace.config import Config, ConfigError, validate
from headrace.model import ModelSpec
from headrace.objectives import CausalLM, ObjectiveConfig
from headrace.train.config import TrainConfig
from headrace.train.start import Origin, recorded

if TYPE_CHECKING:
    from headrace.run import RunConfig

# Parts of `train` that do not change what is computed, or only by how it is rounded.
NOT_FIXED = (
    "layout",
    "num_workers",
    "checkpoint",
    "activation_checkpointing",
    "compile",
    "threads",
    "timeout_s",
    "max_failures",
    "may_change",
)


class TrainSpec(Config):
    """One training run."""

    run: Path  # the run's folder
    tokens: Path  # folder of the committed token store
    seed: int  # of the initial weights and the order of samples
    mixture: dict[str, float]  # weight of each source
    model: ModelSpec
    objective: ObjectiveConfig = CausalLM()
    train: TrainConfig
    start: Origin | None = None  # where the first weights come from, if not from the seed
    owed: tuple[str, ...] = ()  # evaluation suites that must have scored a checkpoint before it may be deleted

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> TrainSpec:
        """The specification in plain values, as `plain` gives them."""
        return validate(cls, values, "training specification")

    def plain(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)

    @property
    def checkpoints(self) -> Path:
        return self.run / "train" / "checkpoints"

    def fixed(self, tokens_fingerprint: str) -> dict[str, Any]:
        """What a checkpoint records of the configuration: whatever the numbers of a run depend on."""
        values = self.plain()
        train = {name: value for name, value in values["train"].items() if name not in NOT_FIXED}
        train["batch"] = {"global": self.train.batch.global_batch}
        if self.start is not None and self.train.start is not None:  # a folder may move: its content is what counts
            train["start"] = self.start.fixed(self.train.start.replay)
        parts = {name: values[name] for name in ("seed", "mixture", "model", "objective")}
        return {**parts, "train": train, "tokens_fingerprint": tokens_fingerprint}


def train_spec(config: RunConfig, tokens: Path) -> dict[str, Any]:
    """The specification, in plain values, of a run's training on a token store."""
    return TrainSpec(
        run=config.folder,
        tokens=tokens,
        seed=config.seed,
        mixture={source.name: source.weight for source in config.sources},
        model=config.model,
        objective=config.objective,
        train=config.train,
        start=None if config.train.start is None else recorded(config.train.start, config.folder),
        owed=("fast",),
    ).plain()


def training_done(values: Mapping[str, Any]) -> bool:
    """Whether the last step's checkpoint is there and whole.

    Raises:
        ConfigError: the run's folder holds the training of another configuration.
    """
    spec = TrainSpec.read(values)
    newest = resumable(values, Artifact.open(spec.tokens).fingerprint)
    return newest is not None and bool(read_manifest(newest)["state"]["step"] == spec.train.steps) and not verify(newest)


def resumable(values: Mapping[str, Any], tokens_fingerprint: str) -> Path | None:
    """The newest committed checkpoint of the run, not looked into; None before the first.

    Raises:
        ConfigError: it belongs to another configuration, or to other data than the fingerprint's.
    """
    spec = TrainSpec.read(values)
    newest = committed(spec.checkpoints)[-1:]
    if not newest:
        return None
    check_unchanged(newest[0], read_manifest(newest[0])["config"], spec.fixed(tokens_fingerprint), spec.train.may_change)
    return newest[0]


def check_unchanged(checkpoint: Path, then: Mapping[str, Any], now: Mapping[str, Any], may_change: Sequence[str] = ()) -> None:
    """Raises ConfigError, naming every field, if a run would be resumed under a configuration that changes its numbers.

    Args:
        may_change: fields that were declared compatible; one stands for those below it, too.
    """
    before, after = dict(_flat(then)), dict(_flat(now))
    changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    changed = [name for name in changed if not any(f"{name}.".startswith(f"{field}.") for field in may_change)]
    if not changed:
        return
    if "tokens_fingerprint" in changed:
        raise ConfigError(
            f"{checkpoint}: was trained on the token store {before.get('tokens_fingerprint')}, but the run's data is now "
            f"{after.get('tokens_fingerprint')}; restore the data's configuration, or name another folder with out=PATH."
        )
    lines = [f"{name} = {after.get(name)!r}, but {before.get(name)!r} so far" for name in changed]
    raise ConfigError(
        f"{checkpoint}: the run was begun with another configuration: {'; '.join(lines)}. Restore it, or name another folder with "
        f"out=PATH; what may change all the same is declared with train.may_change."
    )


def _flat(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value
