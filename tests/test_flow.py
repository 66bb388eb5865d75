"""The whole flow through its command, unbroken and with its processes killed: same artifacts, same loss curve."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from headrace import storage
from headrace.artifact import STAGES, Artifact
from headrace.checkpoint import committed, verify
from headrace.checkpoint.canonical import digests
from headrace.control import cluster
from headrace.control.keeper import _carries
from headrace.events import mistakes
from headrace.storage import mirror, object_store

STEPS = 40
TEXT = "the river ran past an old mill and its wheel turned slowly while grain became flour for bread that fed many people in town"
WORDS = tuple(TEXT.split())


def corpus(path, documents=400):
    """Prose-like documents with exact copies and near-duplicates among them."""
    draw = random.Random(7)
    texts = []
    for _ in range(documents):
        if texts and draw.random() < 0.1:
            texts.append(draw.choice(texts))
        elif texts and draw.random() < 0.1:
            words = draw.choice(texts).split()
            words[draw.randrange(len(words))] = "changed"
            texts.append(" ".join(words))
        else:
            texts.append(
                " ".join(draw.choice(WORDS) + draw.choice(["", "", "", "s", "ed", "ing", ","]) for _ in range(draw.randrange(80, 240)))
                + "."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": f"d{number}", "text": text}) + "\n" for number, text in enumerate(texts)))


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """A configuration file for a run folder of the given name."""
    folder = tmp_path_factory.mktemp("flow")
    corpus(folder / "raw" / "a.jsonl")

    def configure(name):
        values = {
            "out": str(folder / name),
            "unit_bytes": 131072,
            "sources": [{"name": "mill", "kind": "prose", "path": str(folder / "raw" / "*.jsonl"), "filters": []}],
            "split": {"validation": 0.1},
            "tokens": {"vocab_size": 384, "sequence_length": 32},
            "model": {"layers": 2, "hidden": 32, "heads": 2},
            "train": {
                "steps": STEPS,
                "batch": {"global": 8, "micro": 4},
                "layout": {"data": 2, "zero": 1},
                "checkpoint": {"every": 20, "keep": 2},
            },
            "evaluate": {"max_tokens": 2000},
            "cluster": {"cpus": 2},
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path, folder / name

    return configure


def headrace(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "headrace.cli", *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


def finish(process, timeout=420):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def data_files(run):
    found = {}
    for stage in STAGES:
        for path in sorted((run / "data" / stage).rglob("*")):
            if path.is_file() and path.name != "timings.jsonl":
                found[path.relative_to(run).as_posix()] = path.read_bytes()
    return found


def curve(run):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in storage.read_lines(run / "train" / "metrics.jsonl")]


def until(driver, condition, seconds=240):
    """What `condition` gives once it gives something, while the driver is at work."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        assert driver.poll() is None, f"the driver ended: {driver.communicate()}"
        time.sleep(0.02)
    driver.kill()
    raise AssertionError(f"it did not come to pass in time: {driver.communicate()}")


def workers(run, title):
    """Processes of the run's own cluster whose title holds a word."""
    running = cluster.find_running(run / "control")
    if running is None:
        return []
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if title in " ".join(process.cmdline()) and _carries(process, running.mark):
                found.append(process)
    return found


@pytest.fixture(scope="module")
def unbroken(configured):
    path, run = configured("unbroken")
    code, out, err = finish(headrace("run", path))
    assert code == 0, err
    return path, run, out


def test_the_flow_ends_in_a_report_and_leaves_nothing_running(unbroken):
    _, run, out = unbroken
    assert str(run / "report.html") in out
    report = json.loads((run / "report.json").read_text())
    assert report
    assert [line[0] for line in curve(run)] == list(range(1, STEPS + 1))
    checkpoints = [f"step-{step:08d}" for step in range(0, STEPS + 1, 20)]
    assert sorted(path.name for path in (run / "train" / "checkpoints").iterdir()) == checkpoints[-2:], "however late a score came"
    losses = [json.loads((run / "eval" / name / "fast.json").read_text())["validation_loss"] for name in checkpoints]
    assert losses[-1] < losses[0]
    for stage in json.loads((run / "data" / "current.json").read_text()):
        (folder,) = (run / "data" / stage).iterdir()
        totals = json.loads((folder / "manifest.json").read_text())["totals"]
        assert totals["rows_in"] == totals["rows_out"] + sum(totals["rejected"].values())
    assert cluster.find_running(run / "control") is None


def test_every_event_of_a_whole_run_is_of_the_schema(unbroken):
    _, run, _ = unbroken
    events = storage.read_lines(run / "events.jsonl")
    assert [wrong for event in events for wrong in mistakes(event)] == []
    kinds = {event["event"] for event in events}
    assert {"started", "finished", "submitted", "job finished", "checkpoint", "evaluation", "progress"} <= kinds
    told = [event["step"] for event in events if event["event"] == "checkpoint"]
    assert told == list(range(0, STEPS + 1, 20))
    assert sorted(event["checkpoint"] for event in events if event["event"] == "evaluation") == [f"step-{step:08d}" for step in told]


def test_the_same_command_again_does_nothing_and_says_so(unbroken):
    path, run, _ = unbroken
    before = {each: each.stat().st_mtime_ns for each in run.rglob("*") if each.is_file() and not each.name.startswith("report.")}
    code, _, err = finish(headrace("run", path))
    assert code == 0
    assert "nothing was started" in err
    after = {each: each.stat().st_mtime_ns for each in run.rglob("*") if each.is_file() and not each.name.startswith("report.")}
    assert {each for each in before if each.name != "driver.lock" and before[each] != after.get(each)} == set()


def test_a_changed_configuration_is_refused_by_name(unbroken):
    path, _, _ = unbroken
    code, _, err = finish(headrace("run", path, "train.optimizer.lr=0.5"))
    assert code == 2
    assert "lr" in err
    assert "out=" in err
    code, _, err = finish(headrace("run", path, "tokens.vocab_size=500"))  # before the data is made anew in vain
    assert code == 2
    assert "token store" in err
    assert len(list((unbroken[1] / "data" / "tokens").iterdir())) == 1


def test_generation_continues_from_the_newest_checkpoint(unbroken):
    _, run, _ = unbroken
    code, out, err = finish(headrace("generate", run, "the river", "--tokens", "8", "--json"))
    assert code == 0, err
    assert json.loads(out)["checkpoint"] == f"step-{STEPS:08d}"
    assert json.loads(out)["text"]


def test_killed_driver_data_worker_and_train_worker_change_nothing(unbroken, configured):
    _, whole, _ = unbroken
    path, run = configured("broken")

    driver = headrace("train", path)
    until(driver, lambda: list(run.glob("data/*/*/done/*/*.json")))  # the data job is at work
    for worker in workers(run, "ray::Map")[:1]:
        worker.kill()
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert cluster.find_running(run / "control") is not None

    driver = headrace("train", path)
    until(driver, lambda: len(curve(run)) >= 22)
    victims = until(driver, lambda: workers(run, "RayTrainWorker"))
    victims[0].send_signal(signal.SIGKILL)
    code, _, err = finish(driver)
    assert code == 0, err

    assert data_files(run) == data_files(whole)
    assert curve(run) == curve(whole)
    starts = storage.read_lines(run / "train" / "workers.jsonl")
    assert len(starts) == 2
    assert starts[1]["restored_step"] in (0, 20), "whichever was whole by then: they are written behind the steps"


def test_a_run_whose_folder_cannot_be_written_is_refused(configured, tmp_path):
    path, _ = configured("nowhere")
    (tmp_path / "file").write_text("")
    code, _, err = finish(headrace("run", path, f"out={tmp_path / 'file' / 'run'}"))
    assert code == 2
    assert "cannot write there" in err


def test_a_pattern_that_matches_nothing_is_refused(configured):
    path, run = configured("empty")
    code, _, err = finish(headrace("run", path, "sources.0.path=/no/such/*.jsonl"))
    assert code == 2
    assert "/no/such/*.jsonl" in err
    assert not (run / "data").exists() or not list((run / "data").iterdir())


def test_two_drivers_cannot_work_on_one_run(unbroken):
    path, run, _ = unbroken
    from headrace.control.controller import sole_driver

    with sole_driver(run):
        code, _, err = finish(headrace("run", path))
    assert code == 2
    assert str(os.getpid()) in err


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An S3-speaking server with a bucket, for this process and those that it starts; mirrors in a private folder."""
    pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'headrace[s3]'")
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed: pip install 'headrace[test]'")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIexample",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "HEADRACE_CACHE": str(tmp_path / "cache"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(mirror.ENVIRONMENT, raising=False)
    mirror.forget_all()
    object_store.connected.cache_clear()
    object_store.connected().create_bucket(Bucket="mill-bucket")
    yield "s3://mill-bucket/runs/one"
    mirror.forget_all()
    object_store.connected.cache_clear()
    server.stop()


def test_a_run_on_a_store_is_that_on_disk(unbroken, store):
    """Artifacts, loss curve, checkpoints and scores; all read from the store with an empty mirror, as by another machine."""
    path, whole, _ = unbroken
    code, out, err = finish(headrace("run", path, f"out={store}"))
    assert code == 0, err
    assert f"{store}/report.html" in out
    shutil.rmtree(storage.folder(store))
    run = storage.folder(store)
    named = storage.read_json(run / "data" / "current.json")
    assert named == storage.read_json(whole / "data" / "current.json")
    for stage, name in named.items():
        folder = run / "data" / stage / name
        assert storage.read_bytes(folder / "manifest.json") == (whole / "data" / stage / name / "manifest.json").read_bytes()
        assert Artifact.open(folder).breaches() == []
    assert curve(run) == curve(whole)
    ours, theirs = (committed(each / "train" / "checkpoints") for each in (run, whole))
    assert [each.name for each in ours] == [each.name for each in theirs]
    for checkpoint, other in zip(ours, theirs):
        assert verify(checkpoint) == []
        assert digests(checkpoint) == digests(other)
        results = [storage.read_json(each / "eval" / checkpoint.name / "fast.json") for each in (run, whole)]
        assert results[0]["metrics"] == results[1]["metrics"]
    keys = [f"{each}/" for each in storage.sizes(run)]
    left = (*("/work/", "/done/", "/parts-", ".parts/", storage.ASIDE), "cluster.json")  # the last names processes of one machine
    assert [key for key in keys if any(name in key for name in left)] == []
    code, out, err = finish(headrace("generate", store, "the river", "--tokens", "8", "--json"))
    assert code == 0 and json.loads(out)["checkpoint"] == f"step-{STEPS:08d}", err
    code, _, err = finish(headrace("run", path, f"out={store}"))
    assert code == 0 and "nothing was started" in err
