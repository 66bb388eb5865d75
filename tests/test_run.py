from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import headrace.run
import headrace.train.room
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


@pytest.fixture
def without_gpus(monkeypatch):
    for module in (headrace.run, headrace.train.room):
        monkeypatch.setattr(module, "gpus", lambda: (0, 0))


@pytest.mark.parametrize("cores, workers", [(1, 1), (2, 2), (3, 2), (4, 4), (6, 4), (64, 4)])
@pytest.mark.parametrize("layout", ["{}", "auto"])
def test_as_many_workers_as_can_share_the_batch(tmp_path, without_gpus, cores, workers, layout):
    settings = ["train.batch.global=32", "train.batch.micro=8", f"cluster.cpus={cores}", f"train.layout={layout}", "model.hidden=64"]
    config = load_run(written(tmp_path), [*settings, "model.heads=2", "tokens.sequence_length=64", "model.layers=1"])
    assert config.workers == workers


def test_an_automatic_layout_uses_every_gpu(tmp_path, monkeypatch):
    for module in (headrace.run, headrace.train.room):
        monkeypatch.setattr(module, "gpus", lambda: (8, 80 << 30))
    config = load_run(written(tmp_path), ["train.batch.global=32", "train.batch.micro=8", "train.layout=auto"])
    assert config.workers == 8, "two share each matrix where the batch makes four shares"


@pytest.mark.parametrize(
    "overrides, workers",
    [
        (["train.num_workers=3", "train.batch.global=48"], 3),
        (["train.num_workers=[1, 8]"], 4),  # as many as there are cores
        (["train.num_workers=[1, 3]"], 3),
        (["train.num_workers=[8, 16]"], 8),  # more than cores: the fewest
        (["train.num_workers=[1, 8]", "cluster.address=http://127.0.0.1:8265"], 8),
        (["train.layout={tensor: 2}"], 4),
        (["train.layout={tensor: 4, pipeline: 2}"], 8),  # a replica, whatever the cores
        (["train.layout={data: 2, pipeline: 4}"], 8),
        (["train.layout={pipeline: 4}", "train.batch.micro=8"], 4),
    ],
)
def test_the_workers_that_a_layout_or_a_number_asks_for(tmp_path, without_gpus, overrides, workers):
    config = load_run(written(tmp_path), ["train.batch.global=32", "train.batch.micro=1", "cluster.cpus=4", *overrides])
    assert config.workers == workers


def test_a_cluster_elsewhere_does_not_say_how_many_workers_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.num_workers or train\.layout\.data: required with cluster\.address"):
        load_run(written(tmp_path), ["cluster.address=http://127.0.0.1:8265"])
    config = load_run(written(tmp_path), ["cluster.address=http://127.0.0.1:8265", "train.layout=auto", "train.num_workers=4"])
    assert config.workers == 4 and config.room is None, "its workers will choose"


def test_an_illegal_layout_is_refused_before_anything_starts(tmp_path, without_gpus):
    with pytest.raises(ConfigError) as caught:
        load_run(
            written(tmp_path), ["train.layout={pipeline: 2, zero: 3, offload: true}", "train.num_workers=4", "objective.name=continuation"]
        )
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{tmp_path / 'run.yaml'}: ") for line in lines)
    told = [line.split(": ", 1)[1] for line in lines]
    assert told[0] == "objective.name = continuation is nothing for model.architecture = decoder; set causal."
    assert told[1].startswith("train.layout.zero = 3 with pipeline = 2: ") and told[2].startswith(
        "train.layout.offload = true with pipeline = 2"
    )
    assert told[3] == "The nearest legal layout for 4 workers: train.layout.pipeline=1"
    assert len(told) == 4


def test_a_range_of_workers_decides_the_data_parallel_size(tmp_path, without_gpus):
    with pytest.raises(ConfigError, match=r"train\.layout\.data = 2 with train\.num_workers = \[1, 4\]: a range decides"):
        load_run(written(tmp_path), ["train.layout.data=2", "train.num_workers=[1, 4]"])
    with pytest.raises(ConfigError, match=r"num_workers = \[1, 4\]: 1 worker cannot keep .* these numbers can: 2, 4"):
        load_run(written(tmp_path), ["train.layout.tensor=2", "train.num_workers=[1, 4]"])


def test_an_automatic_layout_that_fits_nowhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(headrace.run, "gpus", lambda: (2, 10**9))
    monkeypatch.setattr(headrace.train.room, "gpus", lambda: (2, 10**9))
    with pytest.raises(ConfigError, match=r"train\.layout = auto: nothing fits 2 workers of 1\.0 GB"):
        load_run(written(tmp_path), ["train.layout=auto", "model.preset=124m"])


def test_an_encoder_decoder_has_its_own_objective(tmp_path):
    overrides = ["model.architecture=encoder_decoder", "train.layout.data=1"]
    with pytest.raises(
        ConfigError, match=r"objective\.name = causal is nothing for model\.architecture = encoder_decoder; set continuation"
    ):
        load_run(written(tmp_path), overrides)
    assert load_run(written(tmp_path), [*overrides, "objective.name=continuation"]).objective.name == "continuation"


@pytest.mark.parametrize("names, says", [(["a", "a"], "more than one source"), (["all"], "name the source otherwise")])
def test_names_of_sources_tell_them_apart(tmp_path, names, says):
    sources = [{"name": name, "kind": "web", "path": "x"} for name in names]
    with pytest.raises(ConfigError, match=says):
        load_run(written(tmp_path, sources=sources))


def test_a_folder_without_a_run_is_said_to_be_none(tmp_path):
    with pytest.raises(ConfigError, match="no run there"):
        open_run(tmp_path)
