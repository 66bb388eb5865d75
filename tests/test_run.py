from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from headrace.config import ConfigError
from headrace.run import load_run, open_run, resolved_yaml

ROOT = Path(__file__).resolve().parents[1]


def written(tmp_path, **changes):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"out": str(tmp_path / "run"), "sources": [{"name": "a", "kind": "web", "path": "x"}], **changes}))
    return path


def test_a_minimal_configuration_gets_every_default(tmp_path):
    config = load_run(written(tmp_path), ["train.layout.data=2"])
    assert config.workers == 2
    assert config.folder == tmp_path / "run"
    assert config.dedup.document.threshold == 0.75


@pytest.mark.parametrize("name", ["own.yaml", "quickstart.yaml", "corpus.yaml"])
def test_every_configuration_that_comes_along_is_valid(name):
    config = load_run(ROOT / "jobs" / "configs" / name, ["cluster.cpus=2"])
    assert config.workers == 2


def test_what_is_resolved_reads_back_equal(tmp_path):
    config = load_run(written(tmp_path), ["train.layout.data=2", "train.schedule.name=wsd", "seed=3"])
    config.folder.mkdir()
    (config.folder / "config.yaml").write_text(resolved_yaml(config))
    assert open_run(config.folder) == config


def test_mistakes_of_every_room_are_told_at_once(tmp_path):
    changes = {"train": {"precison": "bf16", "steps": 0}, "split": {"validation": 3}, "dedupe": {}}
    with pytest.raises(ConfigError) as caught:
        load_run(written(tmp_path, **changes))
    told = str(caught.value)
    assert len(told.splitlines()) == 4
    assert "train.precison: unknown key; did you mean 'precision'?" in told
    assert "dedupe: unknown key; did you mean 'dedup'?" in told
    assert "train.steps = 0" in told
    assert "split.validation = 3" in told


def test_a_batch_that_the_workers_cannot_share_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.batch\.global = 22 .* the nearest that fits is 24"):
        load_run(written(tmp_path), ["train.batch.global=22", "train.batch.micro=4", "train.layout.data=2"])


@pytest.mark.parametrize("cores, workers", [(1, 1), (2, 2), (3, 2), (4, 4), (6, 4), (64, 4)])
def test_as_many_workers_as_can_share_the_batch(tmp_path, monkeypatch, cores, workers):
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))  # a machine without GPUs
    config = load_run(written(tmp_path), ["train.batch.global=32", "train.batch.micro=8", f"cluster.cpus={cores}"])
    assert config.workers == workers


def test_a_cluster_elsewhere_does_not_say_how_many_workers_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.layout\.data: required with cluster\.address"):
        load_run(written(tmp_path), ["cluster.address=http://127.0.0.1:8265"])


@pytest.mark.parametrize("names, says", [(["a", "a"], "more than one source"), (["all"], "name the source otherwise")])
def test_names_of_sources_tell_them_apart(tmp_path, names, says):
    sources = [{"name": name, "kind": "web", "path": "x"} for name in names]
    with pytest.raises(ConfigError, match=says):
        load_run(written(tmp_path, sources=sources))


def test_a_folder_without_a_run_is_said_to_be_none(tmp_path):
    with pytest.raises(ConfigError, match="no run there"):
        open_run(tmp_path)
