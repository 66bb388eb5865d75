"""Documents files as deduplication gets them, corpora with planted repeats, whole stages over them and what these leave behind."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from headrace import artifact, schema
from headrace.artifact import Artifact
from headrace.dedup.document import DocumentDedup
from headrace.dedup.judge import VERDICTS
from headrace.dedup.levels import VERSION, Dedup, deduplicate, stage_config

Units = list[dict[str, Any]]

# With a row a band, two documents meet unless they disagree in 64 independent values: below 1e-38 at the threshold.
EVERY_PAIR = DocumentDedup(bands=64, rows=1)


@pytest.fixture(scope="session")
def documents_file() -> Callable[..., dict[str, Any]]:
    """Writes a documents file with the verdicts of an earlier stage; the unit of it."""

    def write(
        folder: Path,
        rank: int,
        texts: Sequence[str],
        *,
        prefix: str = "r",
        rejected: Collection[int] = (),
        priority: int = 0,
        source: str = "s",
        measures: Mapping[str, Sequence[Any]] | None = None,
        row_group_rows: int = 7,
    ) -> dict[str, Any]:
        docs = [(rank << 32) + row for row in range(len(texts))]
        nothing = pa.nulls(len(texts), pa.string())
        ids = [f"{prefix}{rank}-{row}" for row in range(len(texts))]
        columns = [docs, ids, texts, [source] * len(texts), nothing, nothing, nothing]
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.DOCUMENTS)], schema=schema.DOCUMENTS)
        name = f"u{rank:05d}"
        paths = [folder / kind / f"{name}.parquet" for kind in ("documents", "earlier")]
        artifact.write_table(table, paths[0], row_group_rows=row_group_rows)
        reasons = pa.array(["gopher" if row in rejected else None for row in range(len(texts))], pa.string())
        verdicts = {"doc": pa.array(docs, pa.int64()), "reason": reasons, **(measures or {})}
        artifact.write_table(pa.table(verdicts), paths[1])
        return {"id": name, "source": source, "priority": priority, "documents": str(paths[0]), "verdicts": [str(paths[1])]}

    return write


@pytest.fixture
def dedup_stage() -> Callable[..., Artifact]:
    """Runs the stage over units and commits its artifact below a run's folder."""

    def build(run: Path, units: Sequence[dict[str, Any]], config: Dedup, tokenizer: Path | None = None) -> Artifact:
        priorities = {unit["source"]: unit["priority"] for unit in units}
        measures = [config.quality] if config.quality else []
        settings = stage_config(config, priorities, measures)

        def make(folder: Path) -> artifact.StageOutput:
            return deduplicate(units, config, folder, "local", tokenizer)

        def event(*_: Any, **__: Any) -> None:
            pass

        return artifact.build(run, "dedup", version=VERSION, config=settings, inputs={"units": str(units)}, make=make, event=event)

    return build


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path, str], list[dict[str, Any]]]:
    """Reads the rows of one kind that a stage left, of all its units."""

    def read(folder: Path, kind: str) -> list[dict[str, Any]]:
        return [row for path in sorted((folder / kind).iterdir()) for row in artifact.read_table(path).to_pylist()]

    return read


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Reads the files that are a stage's output, by their names."""

    def read(folder: Path) -> dict[str, bytes]:
        files = sorted(path for kind in ("verdicts", "removed", "ids", "index") for path in (folder / kind).rglob("*.*"))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture
def removals(rows_of: Callable[[Path, str], list[dict[str, Any]]]) -> Callable[..., dict[str, tuple[str, str, float | None]]]:
    """Removes duplicates among documents; id -> (reason, kept id, score) of what went, after the checks that hold for every corpus.

    Every pair is compared unless the configuration says otherwise.
    """

    def run(folder: Path, units: Units, config: DocumentDedup = EVERY_PAIR) -> dict[str, tuple[str, str, float | None]]:
        out = folder / "out"
        records = deduplicate(units, Dedup(document=config), out, "local").units
        verdicts, removed = rows_of(out, "verdicts"), rows_of(out, "removed")
        documents = [row for unit in units for row in artifact.read_table(unit["documents"]).to_pylist()]
        assert [row["doc"] for row in verdicts] == sorted(row["doc"] for row in documents)
        assert [row["doc"] for row in removed] == [row["doc"] for row in verdicts if row["reason"]]
        names = {row["doc"]: row["id"] for row in documents}
        assert all(row["id"] == names[row["doc"]] and row["level"] == "document" for row in removed)
        assert all(row["start"] is row["end"] is None for row in removed)
        for record, unit in zip(records, sorted(units, key=lambda unit: unit["id"])):
            assert record["id"] == unit["id"]
            assert record["rows_in"] == record["rows_out"] + sum(record["rejected"].values())
            assert [entry["path"] for entry in record["files"]] == [f"{kind}/{unit['id']}.parquet" for kind in ("removed", "verdicts")]
            for kind, expected in (("removed", schema.REMOVED), ("verdicts", VERDICTS)):
                assert artifact.read_table(out / kind / f"{unit['id']}.parquet").schema == expected
        found = {row["doc"]: row for row in verdicts}
        assert all(row["score"] == found[row["doc"]]["score"] for row in removed)
        return {row["id"]: (found[row["doc"]]["reason"], row["kept_id"], row["score"]) for row in removed}

    return run


@pytest.fixture
def edited_documents(documents_file: Callable[..., dict[str, Any]]) -> Callable[..., Units]:
    """Writes three files of originals, exact and edited copies across files, some rejected before, priorities that differ."""

    def write(folder: Path, seed: int = 6) -> Units:
        rng = random.Random(seed)
        vocabulary = [f"word{number}" for number in range(5000)]
        originals = [rng.choices(vocabulary, k=rng.randrange(5, 150)) for _ in range(30)]
        texts: list[list[str]] = [[], [], []]
        rejected: list[set[int]] = [set(), set(), set()]
        for _ in range(120):
            words = list(rng.choice(originals))
            if (kind := rng.random()) < 0.6:
                count = rng.randrange(1, max(2, len(words) // 8))
                start = rng.randrange(len(words) - count)
                words[start : start + count] = rng.choices(vocabulary, k=count)
            elif kind < 0.7:
                words = rng.choices(vocabulary, k=rng.randrange(4))
            rank = rng.randrange(3)
            if rng.random() < 0.1:
                rejected[rank].add(len(texts[rank]))
            texts[rank].append(rng.choice([" ", "  "]).join(words) + rng.choice(["", "\n"]))
        priorities = [1, 0, 1]
        return [documents_file(folder, rank, texts[rank], rejected=rejected[rank], priority=priorities[rank]) for rank in range(3)]

    return write


@pytest.fixture
def repeated_sentences(documents_file: Callable[..., dict[str, Any]]) -> Callable[[Path], Units]:
    """Writes three files of documents of sentences that recur in and across them, some rejected before, priorities that differ."""

    def write(folder: Path) -> Units:
        rng = random.Random(1)
        stock = [" ".join(rng.choices(["uno", "dos", "tres", "seis"], k=4)).capitalize() for _ in range(12)]
        texts = [
            ["".join(rng.choice(stock) + rng.choice([". ", "!\n"]) for _ in range(rng.randrange(25))) for _ in range(40)] for _ in range(3)
        ]
        rejected = [{row for row in range(40) if rng.random() < 0.1} for _ in range(3)]
        return [documents_file(folder, rank, texts[rank], rejected=rejected[rank], priority=rng.randrange(2)) for rank in range(3)]

    return write


@pytest.fixture
def shared_passages(documents_file: Callable[..., dict[str, Any]]) -> Callable[..., Units]:
    """Writes three files that share passages, lines and whole documents, some rejected before, priorities that differ."""

    def write(folder: Path, seed: int = 0) -> Units:
        rng = random.Random(seed)
        words = ["ab", "c", "d\u0119b", "\u4e00\u4e01", "x\U0001f600y", "zz"]
        passages = [" ".join(rng.choices(words, k=rng.randrange(3, 12))) for _ in range(12)]
        texts: list[list[str]] = [[], [], []]
        rejected: list[set[int]] = [set(), set(), set()]
        for _ in range(60):
            parts = [rng.choice(passages) if rng.random() < 0.6 else " ".join(rng.choices(words, k=6)) for _ in range(rng.randrange(6))]
            rank = rng.randrange(3)
            if rng.random() < 0.1:
                rejected[rank].add(len(texts[rank]))
            texts[rank].append(rng.choice(["\n", " ", ""]).join(parts))
        for rank in range(2):
            texts[rank] += [texts[2][rank], texts[2][rank + 1] + "."]
        priorities = [1, 0, 1]
        return [documents_file(folder, rank, texts[rank], rejected=rejected[rank], priority=priorities[rank]) for rank in range(3)]

    return write


@pytest.fixture(scope="session")
def byte_tokenizer() -> Callable[..., Path]:
    """Writes a tokenizer whose tokens are the bytes of the text; `large` gives the ids beyond 16 bits."""

    def write(path: Path, normalizer: Any = None, large: bool = False) -> Path:
        characters = sorted(pre_tokenizers.ByteLevel.alphabet())
        fillers = {f"<{number}>": number for number in range(1 << 16)} if large else {}
        vocabulary = {**fillers, **{character: len(fillers) + place for place, character in enumerate(characters)}}
        tokenizer = Tokenizer(models.BPE(vocabulary, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        tokenizer.save(str(path))
        return path

    return write


@pytest.fixture(scope="session")
def tokenizer(byte_tokenizer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")
