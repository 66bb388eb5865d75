"""A run on an object store, seen as a folder: its mirror.

The mirror of s3://bucket/run is a folder of this machine below HEADRACE_CACHE (default: the user's cache folder). Every function of
`headrace.storage` that is given a path below it means the object of the same name on the store, whose truth it is. The folder itself holds
copies of files that were fetched or written here, and whatever is written without `headrace.storage`: scratch files.

A process knows the mirrors that it attached and those that its parent had attached: their URLs stand in HEADRACE_REMOTE, which goes with
every Ray job. Paths below a mirror differ from node to node, so between nodes they travel as `portable` has them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from headrace.config import ConfigError
from headrace.storage.disk import ASIDE
from headrace.storage.stores import SCHEMES, Store, split_url, store_of

ENVIRONMENT = "HEADRACE_REMOTE"  # URLs of the runs at hand, separated by spaces
CACHE = "HEADRACE_CACHE"
MARK = "headrace-mirror:"  # before the URL that stands for a path on its way to another node

_attached: dict[str, str] = {}  # folder of a mirror -> its URL
_inherited: str | None = None  # the value of ENVIRONMENT that was read last


class Spot(NamedTuple):
    """Where the truth of a mirrored path lies."""

    store: Store
    key: str

    @property
    def url(self) -> str:
        return self.store.url(self.key)


def folder(name: str | Path) -> Path:
    """The folder that a user names: a path, made absolute, or the mirror of a URL; asks no store anything.

    Raises:
        ConfigError: the URL names no bucket.
    """
    text = str(name)
    for scheme in SCHEMES:
        if text.startswith(scheme):
            return attach(text)
        if isinstance(name, Path) and text.startswith(scheme[:-1]):  # a Path makes one slash of two
            return attach(scheme + text.removeprefix(scheme[:-1]))
    return Path(text).expanduser().absolute()


def attach(url: str) -> Path:
    """The mirror of a URL; from now on this process and its children know it."""
    bucket, prefix = split_url(url)
    url = f"{bucket}/{prefix}".rstrip("/")
    found = mirror_of(url)
    if str(found) not in _known():
        _attached[str(found)] = url
        os.environ[ENVIRONMENT] = " ".join(sorted({*os.environ.get(ENVIRONMENT, "").split(), url}))
    return found


def mirror_of(url: str) -> Path:
    """The folder of a URL's mirror on this machine, made if absent; nobody else may look into it.

    Raises:
        ConfigError: it cannot be made.
    """
    # The same bucket at another endpoint is another bucket.
    endpoints = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if url.startswith("s3:") else ("STORAGE_EMULATOR_HOST",)
    endpoint = next((os.environ[name] for name in endpoints if os.environ.get(name)), "")
    cache = os.environ.get(CACHE) or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"
    mirrors = Path(cache).expanduser().absolute() / "mirrors"
    try:
        mirrors.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = mirrors / f"{url.rpartition('/')[2]}-{xxhash.xxh3_64_hexdigest(f'{endpoint} {url}'.encode())}"
        found.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{mirrors}: no place for what is fetched from {url} ({error.strerror}); set {CACHE} to a folder.") from None
    return found


def forget_all() -> None:
    """Let go of all mirrors, in this process alone."""
    global _inherited
    _attached.clear()
    _inherited = None


def environment() -> dict[str, str]:
    """What the environment of a process on another node must hold for it to know this one's mirrors."""
    _known()
    return {ENVIRONMENT: " ".join(sorted(set(_attached.values())))} if _attached else {}


def locate(path: Path | str) -> Spot | None:
    """Where the truth of a path lies: on a store if it is below a mirror and not aside, else here (None)."""
    known = _known()
    if not known:
        return None
    text = str(path)
    if f"/{ASIDE}" in text:  # scratch of this machine
        return None
    for root, url in known.items():
        if text == root or text.startswith(f"{root}/"):
            bucket, prefix = split_url(url)
            return Spot(store_of(bucket), "/".join(part for part in (prefix, text[len(root) + 1 :]) if part))
    return None


def is_remote(path: Path | str) -> bool:
    """Whether a path is a mirrored one."""
    return locate(path) is not None


def name(path: Path) -> str:
    """What a user calls a path: the URL of a mirrored one."""
    spot = locate(path)
    return spot.url if spot else str(path)


def machine(path: Path) -> Path:
    """Where this machine keeps what concerns it alone (locks, its own cluster): the path itself, and for a mirrored one a place that no
    other machine sees."""
    for root in _known():
        if path.is_relative_to(root):
            return Path(f"{root}.machine") / path.relative_to(root)
    return path


def portable(value: Any) -> Any:
    """A JSON-able value for another node: paths below a mirror in it become URLs. See `resolved`."""
    known = _known()
    return _replaced(value, {root: MARK + url for root, url in known.items()}) if known else value


def resolved(value: Any) -> Any:
    """A value from another node: what `portable` made URLs becomes paths of this machine."""
    known = _known()
    return _replaced(value, {MARK + url: root for root, url in known.items()}) if known else value


def _replaced(value: Any, roots: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(each, roots) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(each, roots) for each in value]
    if isinstance(value, str | Path):
        text = str(value)
        for before, after in roots.items():
            if text == before or text.startswith(f"{before}/"):
                return after + text[len(before) :]
    return value


def _known() -> dict[str, str]:
    """Mirrors of this process, by folder."""
    global _inherited
    urls = os.environ.get(ENVIRONMENT)
    if urls != _inherited:
        _inherited = urls
        _attached.update({str(mirror_of(url)): url for url in (urls or "").split()})
    return _attached
