from __future__ import annotations

import json
import random
import shutil
import unicodedata

import pytest
from pydantic import ValidationError

from headrace import artifact, shuffle
from headrace.config import ConfigError
from headrace.dedup import index_rows
from headrace.dedup.document import DocumentDedup
from headrace.dedup.index import IndexConfig, artifact_of, opened, signature_settings
from headrace.dedup.levels import Dedup, deduplicate, stage_config
from headrace.dedup.survivors import FIRST_OF_INDEX

EVERY_PAIR = {"bands": 64, "rows": 1}
WORDS = [f"word{number}" for number in range(3000)]
OLD_FIRST = 100  # what is added to the priorities of new documents where old and new are deduplicated together


def corpus(rng, originals, count):
    """Edited copies, exact copies and chains of small changes of a few texts: (text, rejected before, quality)."""
    rows = []
    for _ in range(count):
        words = list(rng.choice(originals))
        kind = rng.random()
        for _ in range(rng.randrange(1, 5) if kind < 0.7 else 0):
            place = rng.randrange(len(words))
            words[place : place + rng.randrange(1, max(2, len(words) // 12))] = rng.choices(WORDS, k=2)
        if kind > 0.95:
            words = words[: rng.randrange(5)]
        if kind < 0.4:
            originals.append(words)  # what comes later may be edited from this one
        gaps = [". ", ".\n"] if len(words) % 2 else [". "]
        lines = [" ".join(words[start : start + 10]).capitalize() for start in range(0, len(words), 10)]
        text = "".join(line + gaps[number % len(gaps)] for number, line in enumerate(lines))
        rows.append((text, rng.random() < 0.1, rng.choice([None, 0.25, 0.5, -3.0])))
    return rows


def crawls(seed, sizes):
    """Rows of several crawls that share originals; each crawl is two files of two priorities."""
    rng = random.Random(seed)
    originals = [rng.choices(WORDS, k=rng.randrange(5, 120)) for _ in range(12)]
    return [[(corpus(rng, originals, size), rng.randrange(3)) for _ in range(2)] for size in sizes]


@pytest.fixture
def units_of(documents_file):
    def write(folder, crawl, prefix, first_rank=0, priority=0):
        return [
            documents_file(
                folder,
                first_rank + number,
                [text for text, _, _ in rows],
                prefix=f"{prefix}{number}:",
                rejected={row for row, (_, rejected, _) in enumerate(rows) if rejected},
                priority=priority + own,
                source=f"{prefix}{number}",
                measures={"quality": [quality for _, _, quality in rows]},
            )
            for number, (rows, own) in enumerate(crawl)
        ]

    return write


def removed(stage, prefix):
    """(level, file, row, start, end) -> (reason, the document that it repeats, score) of what went of the documents of one crawl."""
    found = {}
    for verdicts, listed in zip(stage.files("verdicts"), stage.files("removed")):
        reasons = {row["doc"]: row["reason"] for row in artifact.read_table(verdicts).to_pylist()}
        for row in artifact.read_table(listed).to_pylist():
            if row["id"].startswith(prefix):
                kept = None if row["kept_id"] is None else _plain(row["kept_id"])
                found[row["level"], *_plain(row["id"]), row["start"], row["end"]] = (reasons[row["doc"]], kept, row["score"])
    return found


def _plain(name):
    """An id without the rank, which is another one where crawls are deduplicated together."""
    file, _, row = name.partition("-")
    return file.partition(":")[0], row


SETTINGS = [
    {"document": {}},
    {"document": {"rule": "components"}},
    {"document": {**EVERY_PAIR}, "quality": "quality"},
    {"document": {**EVERY_PAIR, "rule": "components"}, "quality": "quality"},
    {"document": {"verify": False, "bands": 30, "rows": 6}},
    {"document": {"verify": False, "rule": "components"}, "quality": "quality"},
    {"document": {"preset": "nemo", "verify": True}},
    {"sentence": {"min_words": 3, "span": 1}},
    {"sentence": {"min_words": 3, "span": 2, "keep": "none"}, "quality": "quality"},
    {"sentence": {"min_words": 0, "min_units": 1, "unit": "line", "span": 1, "keep": 2}},
    {"token": {"min_tokens": 30, "min_words": 2}},
    {"token": {"min_tokens": 40, "min_words": 0, "passes": 2}, "sentence": {"min_words": 3, "span": 1}, "quality": "quality"},
]


@pytest.mark.parametrize("seed, settings", [*((1, each) for each in SETTINGS), *((2, each) for each in SETTINGS[2:4])], ids=str)
def test_an_index_removes_what_its_documents_would_remove(tmp_path, units_of, dedup_stage, tokenizer, seed, settings):
    first, second, third = crawls(seed, [40, 30, 30])
    together = [
        *units_of(tmp_path / "all", first, "a"),
        *units_of(tmp_path / "all", second, "b", 2, OLD_FIRST),
        *units_of(tmp_path / "all", third, "c", 4, 2 * OLD_FIRST),
    ]
    # Each crawl against all before it: what comes later may link two documents of an earlier one, but is not there yet.
    two = dedup_stage(tmp_path / "two", together[:4], Dedup.model_validate(settings), tokenizer)
    three = dedup_stage(tmp_path / "three", together, Dedup.model_validate(settings), tokenizer)

    def run(name, crawl, read):
        config = Dedup.model_validate({**settings, "index": {"read": [str(tmp_path / old) for old in read], "write": True}})
        stage = dedup_stage(tmp_path / name, units_of(tmp_path / f"{name}-documents", crawl, name), config, tokenizer)
        (tmp_path / name / "data" / "current.json").write_text(json.dumps({"dedup": stage.fingerprint}))
        shutil.rmtree(tmp_path / f"{name}-documents")  # nobody reads the old text again
        return stage

    run("a", first, [])
    assert removed(run("b", second, ["a"]), "b") == removed(two, "b")
    shutil.rmtree(tmp_path / "a")  # the second holds what it read
    assert removed(run("c", third, ["b"]), "c") == removed(three, "c")
    repeated = [kept for _, kept, _ in removed(three, "c").values() if kept is not None]
    assert {name[0] for name, _ in repeated} == {"a", "b", "c"}
    assert {level for level, *_ in removed(three, "c")} == {"document", *(settings.keys() & {"sentence", "token"})}


def test_rows_that_the_filter_lets_through_by_chance_change_nothing(tmp_path, units_of, dedup_stage, monkeypatch):
    first, second = crawls(3, [40, 40])
    stages = {}
    for bits in (10, 3):  # the smaller bitmap lets most rows through
        monkeypatch.setattr(index_rows, "MIN_BITS", 6)
        monkeypatch.setattr(index_rows, "MAX_BITS", 6 if bits == 3 else 31)
        monkeypatch.setattr(shuffle, "PARTITION_BYTES", 3000)
        folder = tmp_path / str(bits)
        dedup_stage(folder / "a", units_of(folder / "da", first, "a"), Dedup(index=IndexConfig(write=True)))
        (old,) = (folder / "a" / "data" / "dedup").iterdir()
        config = Dedup(index=IndexConfig(read=(str(old),)))
        stages[bits] = removed(dedup_stage(folder / "b", units_of(folder / "db", second, "b"), config), "b")
    assert stages[10] == stages[3] != {}


@pytest.mark.parametrize("rule", ["dominated", "components"])
def test_two_indexes_that_know_nothing_of_each_other(tmp_path, units_of, dedup_stage, rule):
    """A document goes as if all were deduplicated together; what it repeats may have another name, of two that were never compared."""
    first, second, third = crawls(4, [40, 40, 40])
    config = Dedup(document=DocumentDedup(rule=rule, **EVERY_PAIR), index=IndexConfig(write=True))
    folders = []
    for name, crawl in (("a", first), ("b", second)):
        folders.append(str(dedup_stage(tmp_path / name, units_of(tmp_path / f"d{name}", crawl, name), config).folder))
    both = Dedup(document=config.document, index=IndexConfig(read=tuple(folders)))
    together = [
        *units_of(tmp_path / "all", first, "a"),
        *units_of(tmp_path / "all", second, "b", 2, OLD_FIRST),
        *units_of(tmp_path / "all", third, "c", 4, 2 * OLD_FIRST),
    ]
    joint = dedup_stage(tmp_path / "joint", together, Dedup(document=config.document))
    found = dedup_stage(tmp_path / "c", units_of(tmp_path / "dc", third, "c"), both)
    assert {name: reason for name, (reason, _, _) in removed(found, "c").items()} == {
        name: reason for name, (reason, _, _) in removed(joint, "c").items()
    }
    if rule == "dominated":
        assert removed(found, "c") == removed(joint, "c")
    # What two indexes share is taken once.
    settings = signature_settings(config.document.model_dump())
    chained = Dedup(document=config.document, index=IndexConfig(read=(folders[0],), write=True))
    whole = str(dedup_stage(tmp_path / "d", units_of(tmp_path / "dd", third, "c"), chained).folder)
    assert [unit["rank"] for unit in opened([whole], settings, True).units] == [(FIRST_OF_INDEX >> 32) + place for place in range(4)]
    assert len(opened([folders[0], whole], settings, True).units) == 4
    assert len(opened([folders[1], whole], settings, True).units) == 6


def test_a_run_killed_in_any_phase_ends_in_the_same_bytes(tmp_path, units_of, dedup_stage, contents, killed_copies):
    first, second = crawls(7, [30, 30])
    settings = {"document": {"rule": "components"}, "sentence": {"min_words": 3, "span": 1}}
    config = Dedup.model_validate({**settings, "index": {"write": True}})
    old = dedup_stage(tmp_path / "a", units_of(tmp_path / "da", first, "a"), config)
    config = Dedup.model_validate({**settings, "index": {"read": [str(old.folder)], "write": True}})
    units = units_of(tmp_path / "db", second, "b")
    whole = tmp_path / "whole"
    output = deduplicate(units, config, whole, "local")
    expected = contents(whole)
    assert sum(name.startswith("index/") for name in expected) == 5 * 4 + 2
    killed = killed_copies(whole, 3, 13, "work/.aside-verify-u00001-1234")
    assert len(killed) >= 6
    for folder in killed:
        assert deduplicate(units, config, folder, "local") == output
        assert contents(folder) == expected


@pytest.fixture
def old(tmp_path, units_of, dedup_stage):
    (crawl,) = crawls(5, [20])
    return dedup_stage(tmp_path / "old", units_of(tmp_path / "dold", crawl, "a"), Dedup(index=IndexConfig(write=True)))


@pytest.mark.parametrize(
    "document, said",
    [
        ({"bands": 20}, r"made with bands = 14, this run has 20"),
        ({"rows": 4}, r"made with rows = 8, this run has 4"),
        ({"shingle": {"size": 4}}, r"made with shingle = .*'size': 5.*, this run has .*'size': 4"),
    ],
)
def test_an_index_of_other_signatures_is_refused(old, document, said):
    config = Dedup(document=DocumentDedup.model_validate(document), index=IndexConfig(read=(str(old.folder),)))
    with pytest.raises(ConfigError, match=said):
        stage_config(config, {}, [])


def test_an_index_of_another_unicode_or_without_shingle_sets_is_refused(old, tmp_path, units_of, dedup_stage):
    path = old.folder / "index" / "index.json"
    path.write_text(path.read_text().replace(unicodedata.unidata_version, "9" * len(unicodedata.unidata_version)))
    settings = signature_settings(DocumentDedup().model_dump())
    with pytest.raises(ConfigError, match=r"unicode = '9+', this run has"):
        opened([str(old.folder)], settings, verify=True)
    config = Dedup(document=DocumentDedup(verify=False), index=IndexConfig(write=True))
    unverified = dedup_stage(tmp_path / "new", units_of(tmp_path / "d", crawls(6, [5])[0], "b"), config)
    with pytest.raises(ConfigError, match=r"made with verify = False, so it holds no shingle sets"):
        opened([str(unverified.folder)], settings, verify=True)


def test_an_index_of_another_tokenizer_or_without_tokens_is_refused(old, tmp_path, units_of, dedup_stage, tokenizer):
    config = Dedup.model_validate({"token": {}, "index": {"write": True}})
    (crawl,) = crawls(6, [5])
    tokens = dedup_stage(tmp_path / "tokens", units_of(tmp_path / "d", crawl, "b"), config, tokenizer)
    other = tmp_path / "tokenizer.json"
    other.write_text(tokenizer.read_text() + "\n")
    for read, theirs in ((tokens, r"\{.*'tokenizer'.*\}"), (old, "None")):
        config = Dedup.model_validate({"token": {}, "index": {"read": [str(read.folder)]}})
        with pytest.raises(ConfigError, match=rf"made with token = {theirs}, this run has \{{.*'tokenizer'"):
            dedup_stage(tmp_path / "new", units_of(tmp_path / "dn", crawl, "c"), config, other)


def test_what_is_no_index_is_refused(old, tmp_path, units_of, dedup_stage):
    with pytest.raises(ConfigError, match=r"dedup.index.read = .*: no finished deduplication there"):
        artifact_of(str(tmp_path / "nowhere"))
    without = dedup_stage(tmp_path / "new", units_of(tmp_path / "d", crawls(6, [5])[0], "b"), Dedup())
    with pytest.raises(ConfigError, match=r"kept no index; set dedup.index.write=true"):
        artifact_of(str(without.folder))
    next((old.folder / "index" / "bands").iterdir()).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"index/bands/00000.parquet: 0 bytes, the manifest says"):
        artifact_of(str(old.folder))
    with pytest.raises(ValidationError, match=r"needs dedup.document"):
        Dedup.model_validate({"document": None, "index": {"write": True}})


def test_the_artifact_s_name_depends_on_the_index_and_not_on_where_it_lies(old, tmp_path):
    def name(read, **more):
        return artifact.fingerprint("dedup", 1, stage_config(Dedup(index=IndexConfig(read=read, **more)), {}, []), {})

    here = name((str(old.folder),))
    shutil.copytree(old.folder, tmp_path / "elsewhere")
    assert name((str(tmp_path / "elsewhere"),)) == here
    assert len({here, name(()), name((str(old.folder),), write=True)}) == 3
