"""Where a new run's weights come from, if not from its seed: another run's checkpoint, or a model in the Hugging Face format.

That is continued pretraining. The new run has data, steps and samples of its own, counted from 0, and its own schedule: the rate is
warmed up again and decays again, for at the low rate that a schedule ends with a model hardly takes up new text (Gupta et al. 2023,
arXiv:2308.04014; Ibrahim et al. 2024, arXiv:2403.08763). What that costs of the old text, a share of replay mostly gives back (the
latter). The optimizer's state starts anew: a published model has none, and Adam's second moments of an old run are those of other text at
the end of its decay, which would size the first steps of a risen rate; the warm-up is there for new ones to form.

A start matters to step 0 only. From then on the run goes on from its own checkpoints, which record the start by its digest: the folder
may move, or go, unless something is replayed from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field, TypeAdapter
from tokenizers import Tokenizer

from headrace import storage
from headrace.artifact import Artifact
from headrace.batches import Replay
from headrace.checkpoint import CheckpointError, Reader, committed, read_manifest
from headrace.checkpoint.canonical import MANIFEST, NAME, step_of
from headrace.checkpoint.model_folder import CONFIG, TOKENIZER
from headrace.checkpoint.named import find, place
from headrace.config import Config, ConfigError
from headrace.model import ModelConfig, ModelSpec, model_config
from headrace.tokens.store import TokenStore
from headrace.tokens.tokenizer import Tokens
from headrace.train.config import Start

if TYPE_CHECKING:  # see `_reader`
    import torch

    from headrace.checkpoint.hugging_face import HuggingFaceReader

WAYS = "give RUN@STEP or RUN, the folder that a run's `out` named, or a folder in the Hugging Face format"
# Of a model's configuration, what belongs to its data, or to how it is trained: a start does not decide on it.
NOT_OF_THE_WEIGHTS = {"vocab_size", "sequence_length", "preset", "dropout"}
EFFECTIVE = {"kv_heads": "key_value_heads", "mlp": "mlp_size"}  # fields that may be null, and what they then mean
_SPEC: TypeAdapter[Any] = TypeAdapter(ModelSpec)


class Weights(Protocol):
    """Whole float32 tensors under canonical names, read one at a time."""

    @property
    def weights(self) -> list[str]: ...

    def get(self, name: str) -> torch.Tensor: ...


class Origin(Config):
    """A start that was looked up: plain values that travel to every worker and stand in RUN/train/start.json."""

    asked: str  # what named it, its path absolute
    folder: Path  # of the checkpoint, or of the model
    step: int | None  # optimizer steps behind the checkpoint; null for a model in the Hugging Face format
    digest: str  # SHA-256 of the checkpoint's manifest, or over the model's files
    model: ModelConfig
    tokenizer: str  # digest, see `tokenizer_digest`
    tokens: Path | None = None  # the old run's token store, if it is there still
    mixture: dict[str, float] = Field(default_factory=dict)  # and the weight that the run read each of its sources with
    stamp: str | None = None  # of a model's files, by name, size and time: spares hashing them again

    def fixed(self, replay: float) -> dict[str, Any]:
        """What the run's checkpoints record of their start; the digest stands for the old data and its mixture, too."""
        return {"digest": self.digest, "replay": replay}

    def weights(self) -> AbstractContextManager[Weights]:
        """The tensors to begin with; every rank opens them for itself.

        Raises:
            ConfigError: they are not there any more, or are others.
        """
        try:
            found: Reader | HuggingFaceReader = _reader(self.folder) if self.step is None else Reader(self.folder)
        except CheckpointError as error:
            raise ConfigError(f"{error} The run was to start from it; name another with train.start.checkpoint=.") from None
        if not self.unchanged():
            raise ConfigError(f"{self.folder}: has changed since; the same command again starts from what is there now.")
        return found

    def check(self, store: TokenStore, model: ModelSpec) -> None:
        """The last look, in the worker: at the model and the tokens that there are.

        Raises:
            ConfigError: the weights are another model's, or its ids mean something else.
        """
        wrong = _other_model(model, self)
        if (tokenizer_digest(store.folder / TOKENIZER), store.vocab_size) != (self.tokenizer, self.model.vocab_size):
            wrong.append(f"{store.folder}: its tokens are not those of train.start.checkpoint = {self.asked!r}; {self._way_out}.")
        if wrong:
            raise ConfigError("\n".join(wrong))

    def replay(self, share: float) -> Replay | None:
        """The data to draw that share of the samples from; None for a share of 0.

        Raises:
            ConfigError: it is not there.
        """
        if not share:
            return None
        breach = self.data_breach()
        if breach or self.tokens is None:
            raise ConfigError(f"train.start.replay = {share}: {breach}")
        return Replay(TokenStore.open(self.tokens), self.mixture, share)

    def data_breach(self) -> str | None:
        """Why nothing can be replayed, with the way out; None if something can."""
        if self.tokens is None:
            return f"{self.folder} is a model without its data; set train.start.replay=0, and name the old text among the sources."
        run = self.folder.parents[2]
        kept = storage.present(self.tokens / MANIFEST)
        breaches = Artifact.open(self.tokens).breaches() if kept else [f"{self.tokens}: not there any more"]
        again = f"`headrace data {run / 'config.yaml'}` makes the old run's tokens again, or set train.start.replay=0."
        return f"{breaches[0]}; {again}" if breaches else None

    def unchanged(self) -> bool:
        """Whether the folder holds what was looked up."""
        if self.step is not None:
            return storage.present(self.folder / MANIFEST) and _manifest_digest(self.folder) == self.digest
        with _reader(self.folder) as reader:
            return _stamp(reader.files) == self.stamp or reader.digest() == self.digest

    @property
    def tokenizer_file(self) -> Path:
        """What tokens.tokenizer is to be set to: retention leaves the data alone, but a checkpoint goes in time."""
        kept = self.tokens is not None and storage.present(self.tokens / TOKENIZER)
        return (self.tokens if kept and self.tokens else self.folder) / TOKENIZER

    @property
    def _way_out(self) -> str:
        return f"its ids mean something only with that one: set tokens.tokenizer={self.tokenizer_file}"


def resolve(start: Start, run: Path) -> Origin:
    """What a start names, looked at byte for byte.

    Args:
        run: the new run's folder.

    Raises:
        ConfigError: it names nothing to start from, or what it names is torn.
    """
    folder, step = place(start.checkpoint)
    said = f"train.start.checkpoint = {start.checkpoint!r}"
    if storage.names(folder / "train" / "checkpoints") or storage.present(folder / "config.yaml"):
        if folder.resolve() == run.resolve():
            raise ConfigError(f"{said}: is this run itself, which goes on from its checkpoints as it is; set train.start=null.")
        try:
            return _of_run(find(folder, step), _asked(start))
        except CheckpointError as error:
            raise ConfigError(f"{said}: {error}") from None
    if step is None and storage.present(folder / CONFIG):
        return _of_model(folder, _asked(start))
    if NAME.fullmatch(folder.name) and storage.present(folder / MANIFEST):
        raise ConfigError(f"{said}: a checkpoint is named by its run: train.start.checkpoint={folder.parents[2]}@{step_of(folder)}.")
    there = folder.exists() or storage.names(folder)
    why = "neither a run's checkpoints (train/checkpoints) nor a model (config.json) is there" if there else "no such folder"
    raise ConfigError(f"{said}: {why}; {WAYS}. Models are never fetched.")


def recorded(start: Start, run: Path) -> Origin:
    """What a run started from, as its first command looked it up; or what it would start from now.

    `RUN` alone names another checkpoint tomorrow, so it counts once: see `record`.

    Raises:
        ConfigError: see `resolve`.
    """
    path = _path(run)
    if storage.present(path):
        found = Origin.model_validate(storage.resolved(storage.read_json(path)))
        begun = bool(committed(run / "train" / "checkpoints"))
        if found.asked == _asked(start) and (begun or (_is_there(found.folder) and found.unchanged())):
            return found
    return resolve(start, run)


def record(start: Start, run: Path) -> Origin:
    """`recorded`, and keep it in RUN/train/start.json; for the run's one driver, once it knows that the run may go on so."""
    origin = recorded(start, run)
    storage.note(_path(run), storage.as_json(storage.portable(origin.model_dump(mode="json"))))
    return origin


def check_start(start: Start, run: Path, model: ModelSpec, tokens: Tokens) -> ModelSpec:
    """The run's model, with all that its configuration leaves unsaid taken from the start.

    Everything about a start that can be known before there is data is known here.

    Args:
        model, tokens: as the user wrote them: only the fields of the YAML and of overrides count as said.

    Raises:
        ConfigError: every reason why the run cannot start so, a line each.
    """
    origin = recorded(start, run)
    wrong = _other_model(model, origin) + _other_tokenizer(tokens, origin)
    if start.replay and (breach := origin.data_breach()):
        wrong.append(f"train.start.replay = {start.replay}: {breach}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    theirs = origin.model.model_dump(exclude=NOT_OF_THE_WEIGHTS)
    return _SPEC.validate_python({**theirs, **{name: getattr(model, name) for name in model.model_fields_set & NOT_OF_THE_WEIGHTS}})


def tokenizer_digest(path: Path) -> str:
    """SHA-256 of a tokenizer as its library writes it: the same tokenizer in another file's spelling has the same digest.

    Raises:
        ConfigError: the file holds none.
    """
    try:
        tokenizer = Tokenizer.from_file(str(storage.local(path)))
    except Exception as error:  # the library raises its own bare Exception
        raise ConfigError(f"{path}: {error}; it should be a tokenizer.json.") from None
    # How a text is cut or filled up to a length is no property of its tokens; the data stages do neither.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return hashlib.sha256(storage.as_json(json.loads(tokenizer.to_str()))).hexdigest()


def _other_model(model: ModelSpec, origin: Origin) -> list[str]:
    theirs = origin.model.model_dump(exclude=NOT_OF_THE_WEIGHTS)
    said = {name: getattr(model, name) for name in sorted(model.model_fields_set - NOT_OF_THE_WEIGHTS)}
    differing = [
        f"model.{name} = {value!r}, but {_effective(origin.model, name)!r} there"
        for name, value in said.items()
        if value is not None and (name not in theirs or value != _effective(origin.model, name))
    ]
    if not differing:
        return []
    return [
        f"train.start.checkpoint = {origin.asked!r}: another model: {'; '.join(differing)}. Leave out of `model` what the start decides on."
    ]


def _effective(model: ModelConfig, name: str) -> Any:
    return getattr(model, EFFECTIVE.get(name, name), None)


def _other_tokenizer(tokens: Tokens, origin: Origin) -> list[str]:
    said, start = f"tokens.tokenizer = {tokens.tokenizer!r}", f"train.start.checkpoint = {origin.asked!r}"
    if tokens.tokenizer == "bpe":
        return [f"{said}: would train one that {start} knows nothing of; {origin._way_out}."]
    if tokenizer_digest(Path(tokens.tokenizer)) != origin.tokenizer:
        return [f"{said}: not that of {start}; {origin._way_out}."]
    return []


def _is_there(folder: Path) -> bool:
    return folder.is_dir() or storage.is_remote(folder)


def _asked(start: Start) -> str:
    folder, step = place(start.checkpoint)
    return storage.name(folder) if step is None else f"{storage.name(folder)}@{step}"


def _of_run(checkpoint: Path, asked: str) -> Origin:
    manifest = read_manifest(checkpoint)
    return Origin(
        asked=asked,
        folder=checkpoint,
        step=step_of(checkpoint),
        digest=_manifest_digest(checkpoint),
        model=model_config(manifest["model"]),
        tokenizer=tokenizer_digest(checkpoint / TOKENIZER),
        tokens=checkpoint.parents[2] / "data" / "tokens" / str(manifest["state"]["tokens_fingerprint"]),
        mixture=manifest["config"]["mixture"],
    )


def _of_model(folder: Path, asked: str) -> Origin:
    with _reader(folder) as reader:
        return Origin(
            asked=asked,
            folder=folder,
            step=None,
            digest=reader.digest(),
            model=reader.config,
            tokenizer=tokenizer_digest(folder / TOKENIZER),
            stamp=_stamp(reader.files),
        )


def _reader(folder: Path) -> HuggingFaceReader:
    from headrace.checkpoint.hugging_face import HuggingFaceReader  # with torch: two seconds that other runs do without

    return HuggingFaceReader(folder)


def _manifest_digest(checkpoint: Path) -> str:
    return str(storage.file_entry(checkpoint, checkpoint / MANIFEST)["sha256"])


def _stamp(files: Sequence[Path]) -> str:
    seen = [(path.name, found.st_size, found.st_mtime_ns) for path in files for found in [path.stat()]]
    return hashlib.sha256(storage.as_json(seen)).hexdigest()


def _path(run: Path) -> Path:
    return run / "train" / "start.json"
