"""The phases of deduplication: passes over the units, and keyed reduces between them, all resumable and all counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from headrace.shuffle import KeyedEngine, Reduce, keyed_reduce, num_partitions, partition_of, row_bytes
from headrace.stage import Engine, UnitFunction, run_units


@dataclass(frozen=True)
class Phases:
    """One deduplication under way. Everything that it leaves for itself lies below folder/work, which goes after the commit."""

    units: Sequence[dict[str, Any]]  # in the order of their documents, each with what every phase needs
    folder: Path  # the stage's own
    engine: Engine  # of the units. With "ray" the keyed phases, too, run on Ray once they outgrow this process
    shuffled: dict[str, int] = field(default_factory=dict)  # bytes that each keyed reduce brought together, by its name

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def run(self, function: UnitFunction, phase: str, **more: list[str]) -> list[dict[str, Any]]:
        """One pass over the units, each with its own of the values in `more`; their records."""
        given = [{**unit, **{key: values[place] for key, values in more.items()}} for place, unit in enumerate(self.units)]
        return run_units(function, given, self.folder, phase=phase, engine=self.engine)

    def run_one(self, function: UnitFunction, phase: str, **values: Any) -> None:
        """One piece of work that looks at all units together."""
        run_units(function, [{"id": "all", **values}], self.folder, phase=phase, engine=self.engine)

    def collect(self, inputs: Sequence[Path], key: str, reduce: Reduce, name: str) -> list[Path]:
        """`keyed_reduce` of integer tables into work/<name>."""
        keyed: KeyedEngine = "auto" if self.engine == "ray" else "local"
        self.shuffled[name] = sum(table_bytes(path) for path in inputs)
        return keyed_reduce(inputs, key, reduce, self.work / name, partitions=num_partitions(inputs), engine=keyed)

    def files(self, kind: str) -> list[Path]:
        """The file of every unit that a pass left in work/<kind>."""
        return [self.work / kind / f"{unit['id']}.parquet" for unit in self.units]

    def part_of_each(self, parts: Sequence[Path]) -> list[str]:
        """Of partitions keyed by `rank`, the one with each unit's rows."""
        places = partition_of(np.array([unit["rank"] for unit in self.units], np.int32), len(parts))
        return [str(parts[place]) for place in places]


def table_bytes(path: Path) -> int:
    """Bytes of a table of integers in memory."""
    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows * row_bytes(file.schema_arrow))
