"""Paths that come from data: names in manifests and records must stay below the folder that they are relative to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def below(root: Path, relative: Any) -> Path:
    """The path that a manifest names, below `root`; nothing on storage is looked at.

    Raises:
        ValueError: it is no plain relative path of names between single slashes: absolute, with `..` or `.`, empty, of another system.
    """
    # Without pathlib, which takes ten times as long: a manifest names as many files as its stage has units.
    plain = isinstance(relative, str) and "\\" not in relative and "\0" not in relative
    if not plain or not {"", ".", ".."}.isdisjoint(relative.split("/")):
        raise ValueError(f"names {relative!r}, which is no path below its folder")
    return root / relative


def leads_out(root: Path, path: Path) -> bool:
    """Whether links on the way take a path below `root` out of it; `root` itself may be reached by links."""
    return not path.resolve().is_relative_to(root.resolve())


def leading_out(root: Path, names: Iterable[str]) -> Iterator[Path]:
    """Those of many paths below `root`, named from there, that `leads_out` is true of; what their folders are is found out once."""
    top, folders = str(root), dict[str, bool]()
    for name in names:
        folder = name.rpartition("/")[0]
        if folder not in folders:
            folders[folder] = leads_out(root, root / folder)
        if folders[folder] or (os.path.islink(f"{top}/{name}") and leads_out(root, root / name)):  # noqa: PTH114
            yield root / name
