"""A configuration that another machine can run: none of its paths mean this machine alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headrace.config import ConfigError
from headrace.ingest.files import find_files
from headrace.run import RunConfig, load_run
from headrace.submit.remote import Remote

URL = re.compile(r"^(s3|gs)://")


def load_for(path: Path, overrides: Sequence[str], remote: Remote, shared_storage: bool) -> RunConfig:
    """The run that a YAML describes, as it is run on that cluster.

    Args:
        shared_storage: paths mean the same files here and on every node.

    Raises:
        ConfigError: every mistake, a line each; of the paths, which the cluster would not find.
    """
    config = load_run(path, [*overrides, f"cluster.address={remote.address}"])
    if shared_storage or remote.is_this_machine:
        for source in config.sources:
            find_files(source)  # now, and not when the cluster comes to it
        return absolute(config)
    far = [f"{path}: {place} = {value!r}" for place, value in local_paths(config)]
    if far:
        way = f"is a path of this machine, and {remote.address} is another; name one on s3:// or gs://, or, if every node reaches the same"
        raise ConfigError("\n".join(f"{line}: {way} file at that path, say --shared-storage." for line in far))
    return config


def local_paths(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Every path of a configuration that is no URL, with its place."""
    return ((place, value) for place, value in _paths(config) if not URL.match(value))


def _paths(config: RunConfig) -> Iterator[tuple[str, str]]:
    yield "out", config.out
    for number, source in enumerate(config.sources):
        yield from ((f"sources.{number}.path", pattern) for pattern in source.patterns)
    for number, benchmark in enumerate(config.decontaminate.benchmarks if config.decontaminate else ()):
        yield f"decontaminate.benchmarks.{number}.path", benchmark.path
    if config.tokens.tokenizer != "bpe":
        yield "tokens.tokenizer", config.tokens.tokenizer
    if config.train.start is not None:
        yield "train.start.checkpoint", config.train.start.checkpoint


def absolute(config: RunConfig) -> RunConfig:
    """The same run from any working directory; no artifact is named for where its input lies, so nothing is made anew."""

    def whole(path: str) -> str:
        return path if URL.match(path) else str(Path(path).expanduser().absolute())

    sources = tuple(source.model_copy(update={"path": [whole(pattern) for pattern in source.patterns]}) for source in config.sources)
    changed: dict[str, Any] = {"out": whole(config.out), "sources": sources}
    if config.decontaminate is not None:
        benchmarks = tuple(each.model_copy(update={"path": whole(each.path)}) for each in config.decontaminate.benchmarks)
        changed["decontaminate"] = config.decontaminate.model_copy(update={"benchmarks": benchmarks})
    if config.tokens.tokenizer != "bpe":
        changed["tokens"] = config.tokens.model_copy(update={"tokenizer": whole(config.tokens.tokenizer)})
    if config.train.start is not None:
        start = config.train.start.model_copy(update={"checkpoint": whole(config.train.start.checkpoint)})
        changed["train"] = config.train.model_copy(update={"start": start})
    return config.model_copy(update=changed)
