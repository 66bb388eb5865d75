"""New lines of a file that grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headrace import storage


class Tail:
    """New whole JSON lines of a growing file, each once."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        """Args:
        from_end: leave out what is there already.
        """
        self._path = path
        self._offset = 0
        self._on_store = storage.store_tail(path)
        if from_end:
            self.lines()

    def lines(self) -> list[dict[str, Any]]:
        """Those since the last look; all of them where the file was made shorter, as a resume does."""
        if self._on_store is not None:
            try:
                return self._on_store.lines()
            except storage.StorageError:  # the store is away; what is new comes with a later look
                return []
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return []
        if size < self._offset:
            self._offset = 0
        if size == self._offset:
            return []
        with self._path.open("rb") as handle:
            handle.seek(self._offset)
            content = handle.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found
