"""The data stages of a run on a store: the same artifacts as on disk, whatever the store does on the way."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from headrace import storage
from headrace.artifact import Artifact
from headrace.config import ConfigError
from headrace.pipeline import curate, finished
from headrace.run import RunConfig, open_run, resolved_yaml

TEXT = "the river ran past an old mill and its wheel turned slowly while grain became flour for bread that fed many people"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "a.jsonl"
    draw = random.Random(7)
    texts = [
        " ".join(draw.choice(WORDS) + draw.choice(["", "", "s", "ed", ","]) for _ in range(draw.randrange(80, 200))) for _ in range(200)
    ]
    texts += texts[:20]
    path.write_text("".join(json.dumps({"id": f"d{number}", "text": text}) + "\n" for number, text in enumerate(texts)) + "{broken\n")
    return path


@pytest.fixture(scope="module")
def configured(corpus):
    def configure(out, **changes):
        values = {
            "out": str(out),
            "unit_bytes": 65536,
            "sources": [{"name": "mill", "kind": "prose", "path": str(corpus), "filters": []}],
            "split": {"validation": 0.1},
            "tokens": {"vocab_size": 384, "sequence_length": 32},
            **changes,
        }
        return RunConfig.model_validate(values)

    return configure


@pytest.fixture(scope="module")
def on_disk(configured, tmp_path_factory):
    config = configured(tmp_path_factory.mktemp("disk") / "run")
    curate(config, "local")
    return data_of(config)


def data_of(config):
    """Content of every file that a manifest lists, of the manifests and of current.json."""
    run = config.folder
    found = {"current.json": storage.read_bytes(run / "data" / "current.json")}
    for stage, name in storage.read_json(run / "data" / "current.json").items():
        folder = run / "data" / stage / name
        found[f"{stage}/manifest.json"] = storage.read_bytes(folder / "manifest.json")
        for entry in Artifact.open(folder).entries:
            found[f"{stage}/{entry['path']}"] = storage.local(folder / entry["path"]).read_bytes()
    return found


def test_a_run_on_s3_leaves_what_one_on_disk_does(s3, keys, configured, on_disk, bucket):
    config = configured(f"s3://{bucket}/runs/one")
    curate(config, "local")
    storage.join(config.folder)
    assert data_of(config) == on_disk
    assert not [key for key in keys() if "/work/" in key or "/done/" in key or ".aside-" in key or ".parts/" in key]
    assert finished(config) is not None
    events = [line["event"] for line in storage.read_lines(config.folder / "events.jsonl")]
    assert events.count("finished") == 6
    curate(config, "local")
    assert [line["event"] for line in storage.read_lines(config.folder / "events.jsonl")][len(events) :] == ["skipped"] * 6


@pytest.mark.parametrize(
    ("faults", "hidden"),
    [({"busy": 7}, ()), ({"reset": 9, "lost": 11}, ()), ({"short": 5}, ()), ({}, ("/done/", "manifest.json", "/work/"))],
    ids=["503", "resets", "short reads", "stale listings"],
)
def test_what_a_store_does_on_the_way_changes_nothing(s3, configured, on_disk, bucket, faults, hidden):
    config = configured(f"s3://{bucket}/runs/one")
    s3.every, s3.hidden = faults, hidden
    curate(config, "local")
    shutil.rmtree(config.folder)
    found = data_of(config)
    assert set(s3.met) == ({"stale"} if hidden else set(faults))
    s3.forget()
    assert found == on_disk


def test_a_run_that_was_cut_short_goes_on_on_another_machine(s3, keys, configured, on_disk, bucket, monkeypatch):
    config = configured(f"s3://{bucket}/runs/one")
    s3.refused = ("PUT", "/data/tokens/")
    with pytest.raises(ConfigError, match=r"s3://.*/data/tokens/.*AccessDenied.*allow s3:PutObject"):
        curate(config, "local")
    s3.forget()
    finished_first = {key for key in keys() if key.endswith("manifest.json")}
    assert len(finished_first) == 5
    shutil.rmtree(config.folder)
    curate(config, "local")
    assert data_of(config) == on_disk


def test_every_level_of_deduplication_and_evaluation_sets_read_back_what_they_left(s3, configured, bucket, tmp_path):
    (tmp_path / "set.jsonl").write_text("".join(json.dumps({"text": " ".join(WORDS[start:] + WORDS)}) + "\n" for start in range(5)))
    benchmark = {"name": "mill", "path": str(tmp_path / "set.jsonl"), "fields": ["text"]}
    more = {"dedup": {"sentence": {}, "token": {}, "index": {"write": True}}, "decontaminate": {"benchmarks": [benchmark]}}
    found = []
    for out in (tmp_path / "disk", f"s3://{bucket}/runs/one"):
        config = configured(out, **more)
        curate(config, "local")
        found.append(data_of(config))
    assert found[0] == found[1]
    assert {"dedup/manifest.json", "decontaminate/manifest.json"} <= found[0].keys()


def test_a_stage_s_damaged_object_is_made_again(s3, configured, on_disk, bucket):
    config = configured(f"s3://{bucket}/runs/one")
    filters = curate(config, "local").folder.parents[1] / "filters"
    (name,) = storage.names(filters)
    damaged = filters / name / Artifact.open(filters / name).entries[0]["path"]
    storage.write_bytes(damaged, b"cut")
    curate(config, "local")
    assert data_of(config) == on_disk


def test_reading_verbs_take_the_url_of_a_run(s3, configured, bucket, capsys):
    from headrace.cli import app

    url = f"s3://{bucket}/runs/one"
    config = configured(url)
    storage.write_bytes(config.folder / "config.yaml", resolved_yaml(config).encode())
    curate(config, "local")
    shutil.rmtree(config.folder)
    assert open_run(storage.folder(url)) == config
    storage.write_json(config.folder / "data" / "filters" / ("0" * 16) / "manifest.json", {})
    told = {}
    for arguments in (["inspect", url, "--stage", "ingest"], ["report", url], ["clean", url]):
        app([*arguments, "--json"], standalone_mode=False)
        told[arguments[0]] = json.loads(capsys.readouterr().out)
    assert [row["reason"] for row in told["inspect"]] == ["bad_json"]
    assert told["report"]["funnel"][0]["rows_in"] == 221
    assert told["clean"]["removed"] == [f"{url}/data/filters/{'0' * 16}"]
    assert not storage.names(config.folder / "data" / "filters" / ("0" * 16))
    assert storage.present(config.folder / "report.html")
    with pytest.raises(ConfigError, match=rf"s3://{bucket}/runs/other: no run there"):
        open_run(storage.folder(f"s3://{bucket}/runs/other"))
