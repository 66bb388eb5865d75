"""The phases of deduplication: passes over the units, and keyed reduces between them, all resumable and all counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from headrace import storage
from headrace.dedup import candidates
from headrace.dedup.index import Index
from headrace.shuffle import KeyedEngine, Reduce, keyed_reduce, num_partitions, partition_of, row_bytes
from headrace.stage import Engine, UnitFunction, data_cpus_here, run_units

SMALL_BYTES = 16 << 20  # of integer tables whose passes cost less here than a round of Ray's, which takes a third of a second
SMALL_TEXT_BYTES = 256 << 20  # the same of documents files, as they are stored, for passes that read them


@dataclass(frozen=True)
class Phases:
    """One deduplication under way. Everything that it leaves for itself lies below folder/work, which goes after the commit."""

    units: Sequence[dict[str, Any]]  # in the order of their documents, each with what every phase needs
    folder: Path  # the stage's own
    engine: Engine  # of the units. With "ray" the keyed phases, too, run on Ray once they outgrow this process
    index: Index = field(default_factory=Index)  # documents of earlier runs, which come before these
    shuffled: dict[str, int] = field(default_factory=dict)  # bytes that each keyed reduce brought together, by its name

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @cached_property
    def threads(self) -> int:
        """Units at once in this process, whose kernels leave the interpreter's lock to each other; 0 where data work has other nodes."""
        return data_cpus_here() if self.engine == "ray" else 1

    @cached_property
    def small_text(self) -> bool:
        """Whether the documents, too, are read faster in this process than with Ray."""
        size = sum(storage.size(Path(unit["documents"])) or 0 for unit in self.units)
        return self.threads > 0 and size <= SMALL_TEXT_BYTES

    def run(self, function: UnitFunction, phase: str, *, here: bool = False, **more: Sequence[Any]) -> list[dict[str, Any]]:
        """One pass over the units, each with its own of the values in `more`; their records.

        Args:
            here: the pass is not worth a round of Ray's and runs in this process: it reads no text, and its tables are `small`.
        """
        given = [{**unit, **{key: values[place] for key, values in more.items()}} for place, unit in enumerate(self.units)]
        return self.run_over(given, function, phase, here=here or self.small_text)

    def run_one(self, function: UnitFunction, phase: str, *, here: bool = False, **values: Any) -> list[dict[str, Any]]:
        """One piece of work that looks at all units together; its record."""
        return self.run_over([{"id": "all", **values}], function, phase, here=here)

    def run_index(self, function: UnitFunction, phase: str, *, here: bool = False, **more: Sequence[Any]) -> list[dict[str, Any]]:
        """One pass over the units of the index, each with its own of the values in `more`; their records."""
        given = [{**unit, **{key: values[place] for key, values in more.items()}} for place, unit in enumerate(self.index.units)]
        return self.run_over(given, function, phase, here=here)

    def run_over(self, units: Sequence[dict[str, Any]], function: UnitFunction, phase: str, *, here: bool = False) -> list[dict[str, Any]]:
        """One pass over any units, those of an index among them, which may be many however small the new text is; their records."""
        engine: Engine = "local" if here else self.engine
        return run_units(function, units, self.folder, phase=phase, engine=engine, threads=max(1, self.threads))

    def small(self, paths: Sequence[Path]) -> bool:
        """Whether these tables are small together: a function of the tables alone, so a resumed run decides alike."""
        return sum(storage.size(path) or 0 for path in paths) <= SMALL_BYTES

    def collect(self, inputs: Sequence[Path], key: str, reduce: Reduce, name: str) -> list[Path]:
        """`keyed_reduce` of integer tables into work/<name>."""
        keyed: KeyedEngine = "auto" if self.engine == "ray" else "local"
        self.shuffled[name] = sum(table_bytes(path) for path in inputs)
        return keyed_reduce(inputs, key, reduce, self.work / name, partitions=num_partitions(inputs), engine=keyed)

    def collect_by_file(self, parts: Sequence[Path], name: str) -> list[Path]:
        """Rows with a `rank` brought together by it, each once; a single partition is that already, being the result of a reduce."""
        return list(parts) if len(parts) == 1 else self.collect(parts, "rank", candidates.distinct, f"{name}-by-file")

    def files(self, kind: str, suffix: str = "parquet") -> list[Path]:
        """The file of every unit that a pass left in work/<kind>."""
        return [self.work / kind / f"{unit['id']}.{suffix}" for unit in self.units]

    def part_of_each(self, parts: Sequence[Path], units: Sequence[dict[str, Any]] | None = None) -> list[str]:
        """Of partitions keyed by `rank`, the one with the rows of each unit, or of each of those `units`."""
        places = partition_of(np.array([unit["rank"] for unit in (self.units if units is None else units)], np.int32), len(parts))
        return [str(parts[place]) for place in places]


def table_bytes(path: Path) -> int:
    """Bytes of a table of integers in memory."""
    with pq.ParquetFile(storage.local(path)) as file:
        return int(file.metadata.num_rows * row_bytes(file.schema_arrow))
