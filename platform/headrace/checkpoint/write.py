"""Writing a canonical checkpoint: every writer its own files into one private folder, which one of them makes seen by one rename.

An object store renames nothing: there each writer uploads its files at once to where they will be read, under names of this attempt's own,
and the manifest, written last, makes them a checkpoint.

Writers share nothing but the folder: each leaves a record of its part there, and the publisher waits for all of them. So a writer
may be a thread that runs behind the training of its process, where no collective is allowed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from headrace import storage
from headrace.checkpoint.canonical import FORMAT, MANIFEST, OLD, VERSION, checkpoint_name, verify
from headrace.checkpoint.tensor_file import write_tensor_file

FILE_BYTES = 2 << 30  # of tensors in one file: bounds what `Writer` holds back
POLL_S = 0.01, 1.0  # between two looks for parts: the first pause, and the longest

Kind = Literal["model", "optimizer"]


@dataclass(frozen=True)
class Part:
    """What one writer did: its files and their tensors, or the error it met."""

    files: list[dict[str, Any]] = field(default_factory=list)  # their entries for the manifest
    tensors: dict[str, dict[str, Any]] = field(default_factory=dict)  # the same
    names: list[str] = field(default_factory=list)  # of all tensors that it came across, whoever keeps them
    error: str | None = None


class Files:
    """The files of one writer: at most `FILE_BYTES` of tensors each, unless one tensor is larger."""

    def __init__(self, draft: Draft, writer: int = 0, writers: int = 1) -> None:
        self.entries: list[dict[str, Any]] = []
        self.tensors: dict[str, dict[str, Any]] = {}
        self._draft = draft
        self._label = f"-{draft.token}" if draft.remote else ""
        self._label += f"-writer-{writer:04d}" if writers > 1 else ""
        self._paths: list[Path] = []
        self._held: dict[Kind, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
        self._number: dict[Kind, int] = {"model": 0, "optimizer": 0}

    def add(self, kind: Kind, name: str, tensor: Tensor) -> None:
        """Take in a whole tensor on the CPU; it is written from where it lies and must not change before `finish`."""
        held = self._held[kind]
        if held and sum(other.nbytes for other in held.values()) + tensor.nbytes > FILE_BYTES:
            self._flush(kind)
        held[name] = tensor

    def finish(self) -> None:
        """Write what is held back."""
        self._flush("model")
        self._flush("optimizer")

    def _flush(self, kind: Kind) -> None:
        held = self._held[kind]
        if not held:
            return
        number = self._number[kind]
        file = f"{kind}{self._label}{f'-{number:05d}' if number else ''}.safetensors"
        path = self._draft.folder / file
        self._paths.append(self._draft.final / file if self._draft.remote else path)
        if self._draft.remote:
            path.parent.mkdir(parents=True, exist_ok=True)  # the publisher, on another node, has made its own
        self.entries.append(write_tensor_file(path, held))
        if self._draft.remote:
            storage.upload(path, self._paths[-1], self.entries[-1]["sha256"])
        for name, tensor in held.items():
            self.tensors[name] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."), "file": file}
        self._number[kind] += 1
        held.clear()

    def part(self, names: Iterable[str]) -> Part:
        """What was written, for the publisher.

        Args:
            names: of all tensors that this writer came across, whoever keeps them.
        """
        return Part(self.entries, self.tensors, list(names))

    def discard(self) -> None:
        """Make room: remove what was written, whole or not."""
        for path in self._paths:
            storage.remove(path)


class Draft:
    """The checkpoint of one step in the making; `token` tells it from other attempts at the same step.

    root/.aside-step-00000100-<token>/step-00000100/      the files, as they will be published
    root/.aside-step-00000100-<token>/part-0001.json      what the second writer did

    On an object store: root/step-00000100/model-<token>.safetensors, and root/parts-step-00000100-<token>/part-0001.json.
    """

    def __init__(self, root: Path, step: int, token: str) -> None:
        self.final = root / checkpoint_name(step)
        self.token = token
        self.remote = storage.is_remote(root)
        self._aside = root / f"{storage.ASIDE}{self.final.name}-{token}"
        self._parts = root / f"parts-{self.final.name}-{token}" if self.remote else self._aside
        self.folder = self._aside / self.final.name

    @classmethod
    def begin(cls, root: Path, step: int) -> Draft:
        """A new one, with its folder; the publisher's to call, before the writers begin."""
        draft = cls(root, step, uuid.uuid4().hex[:8])
        try:
            draft.folder.mkdir(parents=True)
        except OSError:
            draft.discard()
            raise
        return draft

    def record(self, writer: int, part: Part) -> None:
        """Leave a part for the publisher.

        Raises:
            FileNotFoundError: the publisher has given up and the folder is gone.
        """
        path = self._part(writer)
        if self.remote:
            return storage.write_json(path, asdict(part))
        aside = path.with_name(f"{storage.ASIDE}{path.name}")
        try:
            aside.write_bytes(storage.as_json(asdict(part)))
            aside.replace(path)
        except FileNotFoundError:
            raise
        except OSError:
            # Not even for this is there room. An empty file needs none.
            path.touch()
        return None

    def parts(self, writers: Mapping[int, str], patience: Callable[[], float]) -> list[Part]:
        """The parts of other writers, once all of them are there.

        Args:
            writers: number of each, and what to call it in a message.
            patience: for so many seconds may the folder's files not grow while a part is missing; asked again at every look.

        Raises:
            TimeoutError: that time is over; with the names of those that are missing.
        """
        found: dict[int, Part] = {}
        size, grown, (pause, longest) = -1, time.monotonic(), POLL_S
        while True:
            for writer in writers.keys() - found.keys():
                with contextlib.suppress(FileNotFoundError):
                    found[writer] = _read_part(storage.read_bytes(self._part(writer)))
            missing = [name for writer, name in writers.items() if writer not in found]
            if not missing:
                return [found[writer] for writer in writers]
            if (now := sum(storage.sizes(self.final).values() if self.remote else _sizes(self.folder))) != size:
                size, grown = now, time.monotonic()
            elif time.monotonic() - grown > patience():
                silent = f"nothing more from {', '.join(missing)} for {patience():g} s"
                raise TimeoutError(f"{silent}; does the process live, and does its node see {storage.name(self._parts)}?")
            time.sleep(pause)
            pause = min(longest, 1.5 * pause)

    def publish(self, parts: Iterable[Part], about: Mapping[str, Any], tokenizer: Path) -> Path:
        """Write the manifest and let the checkpoint appear; its folder.

        Args:
            parts: what every writer did.
            about: the manifest's `model`, `state`, `config`, `layout` and `versions`.
            tokenizer: the tokenizer.json to copy along.

        Raises:
            ValueError: a tensor that two writers kept, or none.
        """
        files: list[dict[str, Any]] = []
        tensors: dict[str, dict[str, Any]] = {}
        names: set[str] = set()
        for part in parts:
            if twice := part.tensors.keys() & tensors.keys():
                raise ValueError(f"{min(twice)} is in {part.tensors[min(twice)]['file']} and in {tensors[min(twice)]['file']}.")
            files += part.files
            tensors |= part.tensors
            names.update(part.names)
        if lost := names - tensors.keys():
            raise ValueError(f"{min(lost)} was kept by no writer.")
        files.append(self._copy(tokenizer))
        files.sort(key=lambda entry: entry["path"])
        # Keys are sorted as they are written: the tensors come in an order of their own, whoever wrote them.
        manifest = {"format": FORMAT, "version": VERSION, "files": files, "tensors": tensors, **about}
        if self.remote:
            return self._publish_on_store(manifest)
        storage.write_json(self.folder / MANIFEST, manifest)
        if self.final.exists():  # broken, or of a course that was given up; `retention.sweep` ends what is cut short between the two
            self.final.replace(self._aside / OLD)
        self.folder.replace(self.final)
        storage.sync_folder(self.final.parent)
        self.discard()
        return self.final

    def _publish_on_store(self, manifest: Mapping[str, Any]) -> Path:
        storage.flush()  # the lines of the steps that this holds: a resume takes them for known
        path = self.final / MANIFEST
        # One that is there and whole is of another attempt at the same step, which takes this one for dead and was sooner.
        if not storage.create(path, storage.as_json(manifest)) and verify(self.final):
            storage.write_json(path, manifest)
        self.discard()
        return self.final

    def discard(self) -> None:
        """Remove what is not published; nothing, after `publish`. What was uploaded goes with the next start, see `retention.sweep`."""
        if self.remote:
            storage.remove_tree(self._parts)
        shutil.rmtree(self._aside, ignore_errors=True)

    def _part(self, writer: int) -> Path:
        return self._parts / f"part-{writer:04d}.json"

    def _copy(self, tokenizer: Path) -> dict[str, Any]:
        content = storage.read_bytes(tokenizer)
        if self.remote:
            storage.write_bytes(self.final / "tokenizer.json", content)
            return {"path": "tokenizer.json", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        with (self.folder / "tokenizer.json").open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        return {"path": "tokenizer.json", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _read_part(content: bytes) -> Part:
    return Part(**json.loads(content)) if content else Part(error="it failed, and had no room to say why")


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a writer that failed takes its files away
            yield path.stat().st_size


class Writer:
    """A checkpoint that one process writes, tensor by tensor: no more than a file's tensors are in memory."""

    def __init__(self, root: Path, step: int) -> None:
        self._draft = Draft.begin(root, step)
        self._files = Files(self._draft)

    def add(self, kind: Kind, name: str, tensor: Tensor) -> None:
        """Take in a whole tensor; it is copied to the CPU and may change afterwards."""
        self._files.add(kind, name, tensor.detach().to("cpu", copy=True))

    def publish(self, about: Mapping[str, Any], tokenizer: Path) -> Path:
        """Write what is held back and the manifest, and let the checkpoint appear; its folder. See `Draft.publish`."""
        self._files.finish()
        return self._draft.publish([self._files.part(())], about, tokenizer)

    def discard(self) -> None:
        """Remove what is not published; nothing, after `publish`."""
        self._draft.discard()
