"""Copies for TensorBoard and MLflow, read back with their own libraries."""

from __future__ import annotations

import importlib.util
import os
import socket
import time

import pytest

from headrace import storage
from headrace.config import ConfigError
from headrace.observe import copies
from headrace.observe.copies import Copy, ReportConfig, copied


@pytest.fixture
def scalars(needs):
    """A function of a folder and a name: (step, value) of what TensorBoard shows."""
    needs("tensorboard", None if importlib.util.find_spec("tensorboard") else "not installed: pip install 'headrace[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder, name):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars(name)]

    return read


@pytest.fixture(scope="module")
def store(needs, tmp_path_factory):
    """URI of a store of MLflow's, and a client of it."""
    needs("mlflow", None if importlib.util.find_spec("mlflow") else "not installed: pip install 'headrace[mlflow]'")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    return uri, MlflowClient(tracking_uri=uri)


def kept(client, run):
    """The MLflow runs of a run, the newest first."""
    experiments = [each.experiment_id for each in client.search_experiments() if each.name == "headrace"]
    return client.search_runs(experiments, filter_string=f"tags.`headrace.run` = '{run.path}'")


def copy(run, kind, target):
    """Make a copy, or go on with it, as the verb does; how many points were new."""
    made = Copy(run.path, kind, str(target))
    points = made.update()
    made.close(20)
    return points


def trained(run, last=20):
    run.start(time=time.time() - 1000)
    run.steps(1, last)
    run.result(10, bits=2.5)


def test_event_files_hold_every_step_and_score_once_however_often_one_copies(run, scalars, tmp_path):
    trained(run, last=12)
    assert copy(run, "tensorboard", tmp_path / "board") == 13
    assert copy(run, "tensorboard", tmp_path / "board") == 0
    run.steps(13, 20)
    assert copy(run, "tensorboard", tmp_path / "board") == 8
    assert scalars(tmp_path / "board", "train/loss") == [(step, pytest.approx(8.0 / step)) for step in range(1, 21)]
    assert scalars(tmp_path / "board", "evaluate/bits_per_byte/all") == [(10, 2.5)]


def test_steps_that_a_resume_takes_again_take_the_place_of_the_earlier_ones(run, scalars, tmp_path):
    trained(run, last=12)
    made = Copy(run.path, "tensorboard", str(tmp_path / "board"))
    made.update()
    run.cut(8)
    run.steps(9, 11, tokens_per_s=99.0)
    made.update()
    made.close(20)
    assert scalars(tmp_path / "board", "train/tokens_per_s")[-4:] == [(8, 50.0), (9, 99.0), (10, 99.0), (11, 99.0)]


def test_a_folder_with_event_files_of_another_run_is_refused(run, scalars, tmp_path):
    trained(run)
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "events.out.tfevents.1.host").write_bytes(b"")
    with pytest.raises(ConfigError, match="event files of something else"):
        copy(run, "tensorboard", tmp_path / "board")


def test_an_mlflow_run_has_configuration_steps_and_scores_and_is_gone_on_with(run, store):
    uri, client = store
    trained(run, last=12)
    assert copy(run, "mlflow", uri) == 13
    (found,) = kept(client, run)
    assert (found.info.run_name, found.info.status) == ("trial", "RUNNING")
    assert found.data.params == {
        "out": "x",
        "seed": "7",
        "sources.0.name": "mill",
        "sources.0.path": "a",
        "train.steps": "20",
        "train.optimizer.lr": "0.001",
    }
    run.steps(13, 20)
    assert copy(run, "mlflow", uri) == 8
    assert copy(run, "mlflow", uri) == 0
    (found,) = kept(client, run)
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert sorted((each.step, each.value) for each in history) == [(step, 8.0 / step) for step in range(1, 21)]
    assert [each.value for each in client.get_metric_history(found.info.run_id, "evaluate/validation_loss")] == [5.0]
    (record,) = (run.path / "copies").glob("mlflow-*.json")
    storage.write_json(record, {**storage.read_json(record), "run_id": "0" * 32})
    assert copy(run, "mlflow", uri) == 21, "one that is not there any more is made anew"
    assert len(kept(client, run)) == 2


def test_copies_are_kept_up_while_a_run_is_on(run, scalars, store, monkeypatch):
    monkeypatch.setattr(copies, "EVERY_S", 0.05)
    uri, client = store
    run.start()
    with copied(run.path, ReportConfig(tensorboard=True, mlflow=uri), 20):
        run.steps(1, 5)
    assert [step for step, _ in scalars(run.path / "tensorboard", "train/loss")] == [1, 2, 3, 4, 5]
    (found,) = kept(client, run)
    assert found.data.metrics["train/loss"] == 8.0 / 5 and found.info.status == "RUNNING"


def test_a_server_that_is_not_there_ends_no_run(run, caplog, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        port = free.getsockname()[1]
    with copied(run.path, ReportConfig(mlflow=f"http://127.0.0.1:{port}"), 20):
        run.steps(1, 5)
    assert any("mlflow: no longer copied to" in record.message for record in caplog.records)


@pytest.mark.parametrize("uri", ["ftp://x", "mlruns", "sqlite://m.db", "http://"])
def test_what_is_no_place_of_mlflow_s_is_refused(uri):
    with pytest.raises(ValueError, match="write http://HOST:PORT"):
        ReportConfig(mlflow=uri)


def test_a_credential_in_it_is_refused():
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD"):
        ReportConfig(mlflow="http://me:secret@tracking:5000")


def test_an_extra_that_is_not_installed_is_named(monkeypatch, run):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert ReportConfig(tensorboard=True, mlflow="http://x:1").missing() == ["tensorboard", "mlflow"]
    assert ReportConfig().missing() == []
    with pytest.raises(ConfigError, match=r"pip install 'headrace\[mlflow\]'"):
        Copy(run.path, "mlflow", "http://x:1")
