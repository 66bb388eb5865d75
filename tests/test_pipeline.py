"""The data side composed: accounts, determinism, what is done again and what is not."""

from __future__ import annotations

import json
import random
import shutil
import unicodedata

import pytest
import xxhash

from headrace import pipeline, storage
from headrace.artifact import Artifact, StageError, read_table
from headrace.config import ConfigError, validate
from headrace.evaluate.watcher import latest_checkpoint
from headrace.inspection import rejected, unreferenced
from headrace.run import RunConfig
from headrace.tokens.store import TokenStore

TEXT = "the quick brown fox that lives in the old forest and runs over the hill with friends of the farmer to be seen by all who have time"


# Each stage's output on the small corpus below beside its version number. When a pin breaks on purpose, raise the VERSION of the
# stage's module and write the new digest here; consumers then make their data again.
PINNED = {
    "ingest": (2, "d925425bbd59f185"),
    "filters": (101, "2e025afacc7fa94d"),
    "dedup": (2, "decebf18812495ea"),
    "split": (1, "1477bb8ef73266bc"),
    "tokens": (1, "2771e81988fffb58"),
}


def sentences(draw, count):
    words = TEXT.split()
    return " ".join(" ".join(draw.choices(words, k=draw.randrange(6, 14))).capitalize() + "." for _ in range(count))


def write_corpus(folder, seed=1):
    """Two files of prose with exact and near copies, two lines that are no documents, and one file of code."""
    draw = random.Random(seed)
    texts = [sentences(draw, draw.randrange(8, 30)) for _ in range(120)]
    texts += texts[:10]  # exact copies
    texts += [text + " And one more sentence at its end." for text in texts[10:20]]  # near-duplicates
    texts += ["too short"]
    lines = [json.dumps({"id": f"p{number}", "text": text}) for number, text in enumerate(texts)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.jsonl").write_text("\n".join([*lines[:70], "{broken", ""]))
    (folder / "b.jsonl").write_text("\n".join([*lines[70:], json.dumps({"id": "no text"}), ""]))
    code = [f"def f{number}(x):\n    y = x + {number}\n    return y * {draw.randrange(1000)}\n" * 3 for number in range(40)]
    (folder / "code.jsonl").write_text("".join(json.dumps({"id": f"c{number}", "text": text}) + "\n" for number, text in enumerate(code)))


def config_of(folder, out, **changes):
    values = {
        "out": str(out),
        "unit_bytes": 65536,
        "sources": [
            {"name": "prose", "kind": "prose", "path": [str(folder / "a.jsonl"), str(folder / "b.jsonl")]},
            {"name": "code", "kind": "code", "path": str(folder / "code.jsonl"), "filters": []},
        ],
        "split": {"validation": 0.2},
        "tokens": {"vocab_size": 400, "sequence_length": 16},
        "train": {"layout": {"data": 2}},
        **changes,
    }
    return validate(RunConfig, values, "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    write_corpus(folder / "raw")
    config = config_of(folder / "raw", folder / "run")
    return config, pipeline.curate(config, "local")


def stage(config, name):
    return Artifact.open(config.folder / "data" / name / pipeline.stage_plans(config)[name].fingerprint)


def files(config):
    found = sorted(path for path in (config.folder / "data").rglob("*") if path.is_file() and path.name != "timings.jsonl")
    return {path.relative_to(config.folder).as_posix(): path.read_bytes() for path in found}


def digest(artifact):
    """Hash of what the files say, not of their bytes: a new Parquet writer changes those and nothing that a consumer sees."""
    state = xxhash.xxh3_64()
    entries = [entry for unit in artifact.units for entry in unit["files"]] + list(artifact.manifest["files"])
    for entry in sorted(entries, key=lambda entry: entry["path"]):
        path = artifact.folder / entry["path"]
        state.update(entry["path"].encode())
        table = path.suffix == ".parquet"
        state.update(json.dumps(read_table(path).to_pylist(), sort_keys=True, default=repr).encode() if table else path.read_bytes())
    return state.hexdigest()


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="pinned under Python 3.11's Unicode tables; another Python's differ")
@pytest.mark.parametrize("name", PINNED)
def test_output_and_version_change_together(made, name):
    config, _ = made
    assert (pipeline.stage_plans(config)[name].version, digest(stage(config, name))) == PINNED[name]


def test_every_stage_accounts_for_its_documents(made):
    config, _ = made
    before = None
    for name in ("ingest", "filters", "dedup", "split", "tokens"):
        totals = stage(config, name).totals
        assert totals["rows_in"] == totals["rows_out"] + sum(totals["rejected"].values())
        if before is not None:
            assert totals["rows_in"] == before
        before = totals["rows_out"]
    assert stage(config, "ingest").totals["rejected"] == {"bad_json": 1, "missing_text": 1}
    assert stage(config, "dedup").totals["rejected"] == {"exact_duplicate": 10, "near_duplicate": 10}


def test_what_reaches_the_tokens_is_what_no_verdict_rejects(made):
    config, tokens = made
    store = TokenStore.open(tokens.folder)
    reached = {
        doc for source in store.sources for part in ("train", "validation") for doc in store.documents(source, part)["doc"].to_pylist()
    }
    kept = set()
    for columns in zip(*(stage(config, name).files("verdicts") for name in ("filters", "dedup")), strict=True):
        tables = [read_table(path, ["doc", "reason"]).to_pylist() for path in columns]
        kept |= {rows[0]["doc"] for rows in zip(*tables, strict=True) if all(row["reason"] is None for row in rows)}
    assert reached == kept
    assert sum(store.num_bytes(source, part) for source in store.sources for part in ("train", "validation")) > 10_000


def test_a_removed_document_names_the_one_it_repeats(made):
    config, _ = made
    rows = rejected(config.folder, "dedup", "exact_duplicate", 50)
    assert len(rows) == 10
    assert all("repeats=p" in row["details"] for row in rows)
    assert {row["reason"] for row in rejected(config.folder, "ingest", None, 10)} == {"bad_json", "missing_text"}
    assert [row["text"] for row in rejected(config.folder, "filters", "gopher_quality:too_few_words", 10)] == ["too short"]


@pytest.mark.parametrize("stage_cut", ["ingest", "filters", "dedup", "split", "tokens"])
def test_cut_anywhere_and_started_again_it_ends_in_the_same_bytes(made, tmp_path, stage_cut):
    config, _ = made
    again = config.model_copy(update={"out": str(tmp_path / "run")})
    shutil.copytree(config.folder, again.folder)
    folder = stage(again, stage_cut).folder
    (folder / "manifest.json").unlink()  # the driver died just before the commit: files are there, and no account of them
    next(path for path in sorted(folder.rglob("*")) if path.suffix in {".parquet", ".bin"}).write_bytes(b"half")
    pipeline.curate(again, "local")
    assert files(again) == files(config)


def test_the_same_input_under_other_names_and_order_gives_the_same_artifacts(made, tmp_path):
    config, _ = made
    shutil.copytree(config.folder.parent / "raw", tmp_path / "elsewhere")
    moved = config_of(tmp_path / "elsewhere", tmp_path / "run")
    moved = moved.model_copy(update={"sources": moved.sources[::-1]})
    pipeline.curate(moved, "local")
    assert files(moved) == files(config)


def test_ray_gives_the_same_bytes(made, tmp_path, ray_session):
    config, _ = made
    there = config.model_copy(update={"out": str(tmp_path / "run")})
    pipeline.curate(there, "ray")
    assert files(there) == files(config)


def test_a_change_remakes_what_depends_on_it_and_nothing_else(made):
    config, _ = made
    before = {name: plan.fingerprint for name, plan in pipeline.stage_plans(config).items()}
    changed = config.model_copy(update={"tokens": config.tokens.model_copy(update={"vocab_size": 500})})
    after = {name: plan.fingerprint for name, plan in pipeline.stage_plans(changed).items()}
    assert [name for name in before if before[name] != after[name]] == ["tokenizer", "tokens"]
    prose = config.sources[0].model_copy(update={"filters": []})
    changed = config.model_copy(update={"sources": (prose, config.sources[1])})
    after = {name: plan.fingerprint for name, plan in pipeline.stage_plans(changed).items()}
    assert [name for name in before if before[name] != after[name]] == ["filters", "dedup", "split", "tokenizer", "tokens"]
    heavier = config.model_copy(update={"sources": (config.sources[0].model_copy(update={"weight": 3.0}), config.sources[1])})
    assert {name: plan.fingerprint for name, plan in pipeline.stage_plans(heavier).items()} == before


def test_evaluation_sets_are_kept_out_of_the_tokens(made, tmp_path):
    plain, _ = made
    lines = [json.loads(line) for line in (plain.folder.parent / "raw" / "a.jsonl").read_text().splitlines() if line.endswith("}")]
    questions = {line["id"]: " ".join(line["text"].split()[3:33]).upper() for line in lines if line["id"] in ("p30", "p40")}
    path = tmp_path / "set.jsonl"

    def configured(**settings):
        path.write_text("".join(json.dumps({"q": text}) + "\n" for text in questions.values()))
        sets = {"decontaminate": {"benchmarks": [{"name": "set", "path": str(path)}], **settings}}
        return config_of(plain.folder.parent / "raw", tmp_path / "run", **sets)

    config = configured()
    store = TokenStore.open(pipeline.curate(config, "local").folder)
    reached = {doc for part in ("train", "validation") for doc in store.documents("prose", part)["doc"].to_pylist()}
    found = stage(config, "decontaminate")
    assert found.totals["rejected"] == {"contaminated": 2}
    assert found.totals["rows_in"] == stage(config, "dedup").totals["rows_out"]
    assert not reached & {doc for path in found.files("removed") for doc in read_table(path)["doc"].to_pylist()}
    rows = rejected(config.folder, "decontaminate", None, 10)
    assert {row["id"] for row in rows} == set(questions)
    assert all("item=set:set#" in row["details"] and "n_gram=" in row["details"] and "repeats" not in row["details"] for row in rows)
    # Another rule, or another set under the same name, is another stage; without one every name is as it was.
    before = {name: plan.fingerprint for name, plan in pipeline.stage_plans(config).items()}
    assert list(before) == ["ingest", "filters", "dedup", "decontaminate", "split", "tokenizer", "tokens"]
    cut = configured(preset="gpt3-cut", margin_chars=0, min_piece_chars=0)
    pipeline.curate(cut, "local")
    assert stage(cut, "decontaminate").totals["cuts"] == 2
    rows = rejected(cut.folder, "decontaminate", "ngram_cut", 10)
    assert {row["text"].upper() for row in rows} == set(questions.values())
    questions["p30"] += " and more"
    later = ["decontaminate", "split", "tokenizer", "tokens"]
    after = {name: plan.fingerprint for name, plan in pipeline.stage_plans(configured()).items()}
    assert [name for name in before if before[name] != after[name]] == later
    without = {name: plan.fingerprint for name, plan in pipeline.stage_plans(plain).items()}
    assert [name for name in without if without[name] != before[name]] == later[1:]
    with pytest.raises(ConfigError, match=r"decontaminate\.benchmarks\.set\.path = .*no such file"):
        path.unlink()
        pipeline.stage_plans(config)


def test_clean_finds_what_the_configuration_no_longer_refers_to(made, tmp_path):
    config, _ = made
    again = config.model_copy(update={"out": str(tmp_path / "run")})
    shutil.copytree(config.folder, again.folder)
    assert unreferenced(again.folder) == []
    changed = again.model_copy(update={"tokens": again.tokens.model_copy(update={"sequence_length": 32})})
    old = stage(again, "tokens").folder
    pipeline.curate(changed, "local")
    assert [path for path, _ in unreferenced(again.folder)] == [old]


def test_nothing_left_to_train_on_is_said(tmp_path):
    write_corpus(tmp_path / "raw")
    config = config_of(tmp_path / "raw", tmp_path / "run", tokens={"vocab_size": 400, "sequence_length": 100_000})
    with pytest.raises(StageError, match=r"fewer than one sequence of 100000; .*tokens\.sequence_length"):
        pipeline.curate(config, "local")


def test_a_tokenizer_of_one_s_own(made, tmp_path):
    _, tokens = made
    write_corpus(tmp_path / "raw")
    given = {"tokenizer": str(tokens.folder / "tokenizer.json"), "sequence_length": 16}
    store = TokenStore.open(pipeline.curate(config_of(tmp_path / "raw", tmp_path / "run", tokens=given), "local").folder)
    assert store.vocab_size == TokenStore.open(tokens.folder).vocab_size
    with pytest.raises(ConfigError, match="no such file"):
        pipeline.stage_plans(config_of(tmp_path / "raw", tmp_path / "run", tokens={"tokenizer": str(tmp_path / "none.json")}))


def test_events_say_what_happened(made):
    config, _ = made
    lines = storage.read_lines(config.folder / "events.jsonl")
    assert [line["event"] for line in lines if line["stage"] == "dedup"][:2] == ["started", "finished"]
    assert all("seconds" in line for line in lines if line["event"] == "finished")
    assert latest_checkpoint(config.folder) is None
