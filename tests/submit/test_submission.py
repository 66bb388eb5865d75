"""A run handed over: what is sent, under which name, and that the second finds the first."""

from __future__ import annotations

import io
import json
import random
import zipfile

import pytest
import yaml

from headrace import pipeline
from headrace.config import ConfigError
from headrace.run import RunConfig, load_run
from headrace.submit import portable, submission
from headrace.submit.remote import Remote
from headrace.submit.submission import Placement


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """The path of a YAML all of whose paths are relative to the working directory, which is below tmp_path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_text('{"text": "some text"}\n')
    (tmp_path / "items.jsonl").write_text('{"question": "what is asked of everybody in the exam of the year"}\n')
    values = {
        "out": "runs/one",
        "sources": [{"name": "mill", "kind": "prose", "path": "raw/*.jsonl"}],
        "decontaminate": {"benchmarks": [{"name": "items", "path": "items.jsonl"}]},
        "model": {"layers": 1, "hidden": 16, "heads": 2},
        "train": {"steps": 1, "num_workers": 1},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "run.yaml"


class Cluster:
    """The answers of the Jobs API of another machine, which keeps what it is given; `remote` speaks to it."""

    def __init__(self, dashboard):
        self.jobs, self.packages = {}, {}
        self.dashboard = dashboard
        dashboard.answers["GET", "/api/jobs/"] = lambda _: (200, json.dumps(list(self.jobs.values())).encode())
        dashboard.answers["POST", "/api/jobs/"] = self.submit
        dashboard.answers["GET", "/nodes?view=hostnamelist"] = (200, json.dumps({"data": {"hostNameList": ["elsewhere"]}}).encode())
        dashboard.otherwise = self.package
        self.remote = Remote(dashboard.address)

    def submit(self, body):
        asked = json.loads(body)
        name = asked["submission_id"]
        if name in self.jobs:
            return 500, f"Traceback\nValueError: Job with submission_id {name} already exists. Please use another.\n".encode()
        self.jobs[name] = {"submission_id": name, "status": "RUNNING", "metadata": asked["metadata"], "start_time": 1000}
        self.dashboard.answers["GET", f"/api/jobs/{name}"] = lambda _: (200, json.dumps(self.jobs[name]).encode())
        return 200, b"{}"

    def package(self, method, path, body):
        """As the head does: what is put is there from then on."""
        if not path.startswith("/api/packages/gcs/_ray_pkg_") or (method == "GET" and path not in self.packages):
            return 404, b"does not exist"
        if method == "PUT":
            self.packages[path] = body
        return 200, b""

    def requests(self):
        return [json.loads(body) for method, path, _, body in self.dashboard.asked if (method, path) == ("POST", "/api/jobs/")]


@pytest.fixture
def cluster(dashboard):
    return Cluster(dashboard)


def hand_over(config, cluster, upto="data", **more):
    return submission.submit(config, cluster.remote, upto, Placement(**more), shared_storage=True)


@pytest.fixture
def config(configured, cluster):
    return portable.load_for(configured, [], cluster.remote, shared_storage=True)


def test_paths_of_this_machine_are_refused_all_at_once(configured, cluster):
    with pytest.raises(ConfigError) as told:
        portable.load_for(configured, [], cluster.remote, shared_storage=False)
    lines = str(told.value).splitlines()
    places = ["out = 'runs/one'", "sources.0.path = 'raw/*.jsonl'", "decontaminate.benchmarks.0.path = 'items.jsonl'"]
    assert [line.split(": ")[1] for line in lines] == places
    assert all("s3:// or gs://" in line and "--shared-storage" in line for line in lines)
    with pytest.raises(ConfigError, match=r"sources\.mill\.path"):  # and with shared storage, what is not there
        portable.load_for(configured, ["sources.0.path=nowhere/*.jsonl"], cluster.remote, shared_storage=True)
    assert not [asked for asked in cluster.dashboard.asked if asked[0] != "GET"]  # nothing was sent


def test_urls_may_go_anywhere(configured, cluster):
    far = ["out=s3://bucket/run", "sources.0.path=s3://bucket/raw/", "decontaminate=null"]
    config = load_run(configured, [*far, f"cluster.address={cluster.remote.address}"])
    assert list(portable.local_paths(config)) == []


def test_absolute_paths_name_the_same_artifacts(configured, monkeypatch, tmp_path):
    config = load_run(configured)
    names = {name: plan.fingerprint for name, plan in pipeline.stage_plans(config).items()}
    whole = portable.absolute(config)
    assert whole.folder == config.folder
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert {name: plan.fingerprint for name, plan in pipeline.stage_plans(whole).items()} == names
    assert all(value.startswith(str(tmp_path)) for _, value in portable.local_paths(whole))


def test_what_is_sent(config, cluster):
    made = hand_over(config, cluster, labels={"pool": "head"}, resources={"CPU": 1.0, "driver": 0.5})
    (asked,) = cluster.requests()
    assert asked["submission_id"] == made.submission_id == submission.driver_stem(config.folder) + "1"
    assert (asked["entrypoint_num_cpus"], asked["entrypoint_resources"]) == (1.0, {"driver": 0.5})
    assert asked["entrypoint_label_selector"] == {"pool": "head"}
    assert asked["entrypoint"] == "python environment.py ."  # no path of this machine: the cluster is another
    assert asked["metadata"].keys() == {"run", "job", "attempt", "upto", "config_sha256", "headrace_version"}
    assert int(asked["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 600
    (package,) = cluster.packages.values()
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        assert sorted(archive.namelist()) == ["config.yaml", "environment.py", "expected.json"]
        sent = RunConfig.model_validate(yaml.safe_load(archive.read("config.yaml")))
        assert json.loads(archive.read("expected.json"))["upto"] == "data"
    assert sent == config
    assert submission.recorded(config.folder) == made


def test_the_second_finds_the_first(config, cluster):
    first = hand_over(config, cluster)
    second = hand_over(config, cluster)
    assert (second.submission_id, first.adopted, second.adopted) == (first.submission_id, False, True)
    assert len(cluster.requests()) == 1
    assert submission.recorded(config.folder).submission_id == first.submission_id


def test_two_at_once_are_one(config, cluster):
    """The list that both saw was empty; the second request is refused for its name."""
    first = hand_over(config, cluster)
    submission.record_path(config.folder).unlink()
    cluster.dashboard.answers["GET", "/api/jobs/"] = (200, b"[]")
    assert hand_over(config, cluster).adopted
    assert submission.recorded(config.folder).submission_id == first.submission_id


@pytest.mark.parametrize("change, upto, theirs", [(["seed=7"], "data", "another configuration"), ([], "train", "--upto data")])
def test_another_configuration_does_not_join_one_that_is_at_work(configured, config, cluster, change, upto, theirs):
    hand_over(config, cluster)
    other = portable.load_for(configured, change, cluster.remote, shared_storage=True)
    with pytest.raises(ConfigError, match=f"is at work on it with {theirs}; wait for it, or `headrace stop"):
        hand_over(other, cluster, upto)
    assert len(cluster.requests()) == 1


def test_after_its_end_a_run_goes_on_under_the_next_number(config, cluster):
    first = hand_over(config, cluster)
    cluster.jobs[first.submission_id]["status"] = "STOPPED"
    second = submission.resubmit(config.folder, cluster.remote)
    assert (first.generation, second.generation, second.adopted) == (1, 2, False)
    assert second.config_sha256 == first.config_sha256
    cluster.jobs.clear()  # a cluster that was started anew remembers nothing
    assert submission.resubmit(config.folder, cluster.remote).generation == 3


def test_a_driver_that_was_stopped_before_its_start_is_not_joined(config, cluster):
    first = hand_over(config, cluster)
    cluster.jobs[first.submission_id]["status"] = "PENDING"
    submission.doom(config.folder, cluster.remote.known(first.submission_id))
    assert submission.is_doomed(cluster.remote.known(first.submission_id), submission.recorded(config.folder))
    second = hand_over(config, cluster)
    assert (second.generation, second.adopted) == (2, False)
    assert hand_over(config, cluster).submission_id == second.submission_id


def test_equal_content_is_sent_once(cluster):
    files = {"config.yaml": b"out: a\n", "environment.py": b"pass\n"}
    name, _ = submission.packed(files)
    assert submission.packed(dict(reversed(files.items())))[0] == name != submission.packed({**files, "config.yaml": b"out: b\n"})[0]
    assert submission.upload(cluster.remote, files) == submission.upload(cluster.remote, files) == f"gcs://{name}"
    assert [method for method, path, _, _ in cluster.dashboard.asked if name in path] == ["GET", "PUT", "GET"]


def test_too_much_is_refused_with_its_size(cluster):
    with pytest.raises(ConfigError, match=r"takes 9\.\d MB packed, and 8\.4 MB may be sent"):
        submission.upload(cluster.remote, {"config.yaml": random.Random(0).randbytes(9_000_000)})
    assert cluster.packages == {}


def test_a_run_that_was_never_handed_over_is_not_resumed_so(cluster, tmp_path):
    with pytest.raises(ConfigError, match="was never submitted; `headrace submit` or `headrace run` begins it"):
        submission.resubmit(tmp_path, cluster.remote)
