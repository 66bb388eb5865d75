"""A real Prometheus scrapes a real run: every expression of a dashboard or an alert has series of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

import headrace
from headrace import storage
from headrace.config import ConfigError
from headrace.observe.metrics import METRICS
from headrace.observe.monitoring import OBSERVABILITY, targets_of, write_monitoring

DASHBOARDS = sorted((OBSERVABILITY / "dashboards").glob("*.json"))
ALERTS = yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"][0]["rules"]
OF_GPUS = "ray_headrace_train_model_flops_utilization"  # no peak is known of a CPU, so it is set nowhere else


def expressions():
    """(where, expression) of each panel and alert; of an alert what it holds against its threshold."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}", target["expr"]
    for alert in ALERTS:
        measured, threshold = re.fullmatch(r"(.+) > ([\d.]+)", alert["expr"]).groups()
        assert float(threshold) >= 0
        yield alert["alert"], measured


def filled(expression, run):
    """An expression with Grafana's variables replaced, as Grafana would."""
    return expression.replace("$__rate_interval", "1m").replace("$run", run)


class Prometheus:
    """One on loopback, with a folder of its own."""

    def __init__(self, program, folder):
        config = folder / "prometheus.yml"  # a run of seconds is looked at every second
        config.write_text(re.sub(r"(scrape_interval|evaluation_interval|refresh_interval): 10s", r"\1: 1s", config.read_text()))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen([program, *options], stdout=log, stderr=log, cwd=folder)
        deadline = time.monotonic() + 60
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError((folder / "log").read_text())
            time.sleep(0.1)

    def _is_ready(self):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
            return answer.status == 200
        return False

    def ask(self, what, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None

    def close(self):
        self.process.terminate()
        self.process.wait(30)


def corpus(path, seed):
    draw = random.Random(seed)
    words = ("river", "ran", "past", "old", "mill", "wheel", "turned", "slowly", "while", "grain", "became", "flour", "for", "bread")
    texts = [" ".join(draw.choice(words) for _ in range(draw.randrange(60, 120))) for _ in range(100)]
    path.write_text("".join(json.dumps({"id": f"d{number}", "text": text}) + "\n" for number, text in enumerate([*texts, *texts[:20]])))


@pytest.fixture(scope="module")
def scraped(program, tmp_path_factory):
    """A run of data and training on its own local cluster, the Prometheus that scraped it, and when it began and ended."""
    folder = tmp_path_factory.mktemp("scraped")
    prometheus = program("prometheus")
    run = folder / "trial"
    for seed, name in enumerate(("mill", "book")):
        corpus(folder / f"{name}.jsonl", seed)
    sources = [{"name": name, "kind": "prose", "path": str(folder / f"{name}.jsonl"), "filters": []} for name in ("mill", "book")]
    values = {
        "out": str(run),
        "unit_bytes": 65536,
        "sources": sources,
        "split": {"validation": 0.1},
        "tokens": {"vocab_size": 384, "sequence_length": 32},
        "model": {"layers": 1, "hidden": 16, "heads": 2},
        "train": {"steps": 1200, "batch": {"global": 2, "micro": 2}, "num_workers": 1, "checkpoint": {"every": 400}},
        "cluster": {"cpus": 2},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    # The score of an earlier checkpoint: scoring one takes longer than this training.
    rows = [{"metric": "bits_per_byte", "source": source, "value": 2.5} for source in ("all", "mill", "book")]
    result = {"status": "scored", "checkpoint_manifest_sha256": "", "max_tokens": 1, "validation_loss": 5.0, "metrics": rows}
    storage.write_json(run / "eval" / "step-00000000" / "fast.json", result)
    write_monitoring(folder / "monitoring", targets_of(run))
    often = {**os.environ, "RAY_metrics_report_interval_ms": "3000"}  # Ray hands on new values so often, instead of every ten seconds
    watching, begin = Prometheus(prometheus, folder / "monitoring"), time.time()
    try:
        command = [sys.executable, "-m", "headrace.cli", "train", str(folder / "run.yaml")]
        done = subprocess.run(command, env=often, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        yield run, watching, begin, time.time()
    finally:
        watching.close()


def series(scraped, expression):
    run, prometheus, begin, end = scraped
    found = prometheus.ask("query_range", query=filled(expression, run.name), start=begin, end=end, step=1)["result"]
    return [(one["metric"], [float(value) for _, value in one["values"]]) for one in found]


def test_every_expression_has_series_of_the_run(scraped):
    empty = [f"{where}: {what}" for where, what in expressions() if OF_GPUS not in what and not series(scraped, what)]
    assert not empty
    assert scraped[1].ask("query", query=filled(f'max by (run) ({OF_GPUS}{{run=~"$run"}})', "trial"))["result"] == []  # it parses


def test_counters_are_those_of_the_manifests_by_source_and_reason(scraped):
    run = scraped[0]
    for stage in ("ingest", "dedup", "tokens"):
        (path,) = (run / "data" / stage).glob("*/manifest.json")
        totals = json.loads(path.read_text())["totals"]
        for name in ("in", "out"):
            found = series(scraped, f'sum by (stage) (ray_headrace_documents_{name}_total{{run="trial", stage="{stage}"}})')
            assert found[0][1][-1] == totals[f"rows_{name}"]
        dropped = series(scraped, f'sum by (reason) (ray_headrace_documents_dropped_total{{run="trial", stage="{stage}"}})')
        assert {labels["reason"]: values[-1] for labels, values in dropped} == totals["rejected"]
    assert totals["rows_in"] > 0
    assert {labels["source"] for labels, _ in series(scraped, 'sum by (source) (ray_headrace_documents_in_total{run="trial"})')} == {
        "mill",
        "book",
    }


def test_gauges_are_those_of_the_run_s_own_files(scraped):
    run = scraped[0]
    losses = {line["loss"] for line in storage.read_lines(run / "train" / "metrics.jsonl")}
    ((_, shown),) = series(scraped, 'max by (run) (ray_headrace_train_loss{run="trial"})')
    assert set(shown) <= losses
    ((_, planned),) = series(scraped, 'max by (run) (ray_headrace_train_steps_planned{run="trial"})')
    assert set(planned) == {1200}
    assert {values[-1] for _, values in series(scraped, 'ray_headrace_evaluation_bits_per_byte{run="trial"}')} == {2.5}


def test_every_metric_that_is_listed_is_scraped_with_its_labels(scraped):
    for name, metric in METRICS.items():
        full = f"ray_headrace_{name}" + ("_total" if metric.kind == "counter" else "")
        found = series(scraped, full)
        assert (found == []) if full == OF_GPUS else found or name == "train_incidents", full  # of incidents there may be none
        assert all({"run", *metric.labels} <= labels.keys() and labels["run"] == "trial" for labels, _ in found)


def test_every_node_s_endpoint_answered_and_is_forgotten_when_the_cluster_is_down(scraped):
    assert max(series(scraped, 'sum(up{job="ray"})')[0][1]) >= 1
    assert not targets_of(scraped[0]).is_symlink()


def test_the_rules_and_the_configuration_are_valid(program, tmp_path):
    promtool = program("promtool") if program("prometheus") else None
    write_monitoring(tmp_path / "monitoring", tmp_path / "targets.json")
    subprocess.run([promtool, "check", "config", tmp_path / "monitoring" / "prometheus.yml"], check=True, capture_output=True)


FIRING = {  # series under which an alert fires, at a minute each
    "HeadraceNoStep": ('ray_headrace_train_step_age_seconds{run="r"}', "0+60x40"),
    "HeadraceCheckpointOld": ('ray_headrace_checkpoint_age_seconds{run="r"}', "6000+60x40"),
    "HeadraceStepsSkipped": ('ray_headrace_train_skipped_steps{run="r"}', "0+1x40"),
    "HeadraceDropsShare": ('ray_headrace_documents_dropped_total{run="r",stage="filters",source="web"}', "95+95x40"),
    "HeadraceEvaluationBacklog": ('ray_headrace_evaluation_backlog{run="r",suite="fast"}', "6+0x40"),
    "HeadraceNodeUnreachable": ('up{job="ray",instance="a:1"}', "0+0x40"),
}
CALM = {  # and under which none does
    'ray_headrace_train_step_age_seconds{run="calm"}': "5+0x40",
    'ray_headrace_checkpoint_age_seconds{run="calm"}': "600+0x40",
    'ray_headrace_train_skipped_steps{run="calm"}': "7+0x40",
    'ray_headrace_documents_dropped_total{run="calm",stage="filters",source="web"}': "10+10x40",
    'ray_headrace_documents_in_total{run="calm",stage="filters",source="web"}': "100+100x40",
    'ray_headrace_documents_in_total{run="r",stage="filters",source="web"}': "100+100x40",
    'ray_headrace_evaluation_backlog{run="calm",suite="fast"}': "3+0x40",
    'up{job="ray",instance="calm:1"}': "1+0x40",
}


def test_each_alert_fires_when_it_should_and_only_for_the_run_that_it_is_about(program, tmp_path):
    assert FIRING.keys() == {alert["alert"] for alert in ALERTS}
    assert program("prometheus")
    given = [{"series": series, "values": values} for series, values in [*FIRING.values(), *CALM.items()]]
    expected = []
    for alert in ALERTS:
        labels = dict(re.findall(r'(\w+)="([^"]+)"', FIRING[alert["alert"]][0]))
        kept = (
            labels
            if "by" not in alert["expr"]
            else {key: labels[key] for key in re.search(r"by \(([^)]+)\)", alert["expr"])[1].split(", ")}
        )
        expected.append({"eval_time": "40m", "alertname": alert["alert"], "exp_alerts": [{"exp_labels": {**kept, **alert["labels"]}}]})
    test = {"rule_files": [str(tmp_path / "alerts.yml")], "evaluation_interval": "1m", "tests": [{"interval": "1m", "input_series": given}]}
    rules = yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        assert rule.pop("annotations")["summary"]  # what they say of a value is Prometheus's to write, and not what is asked here
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    test["tests"][0]["alert_rule_test"] = expected
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run([program("promtool"), "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_names_metrics_that_are_there_and_lays_its_panels_out(path):
    board = json.loads(path.read_text())
    assert board["uid"] == path.stem and len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    ours = {f"ray_headrace_{name}" + ("_total" if metric.kind == "counter" else "") for name, metric in METRICS.items()}
    used = {name for _, what in expressions() for name in re.findall(r"ray_headrace_\w+", what)}
    assert used <= ours


def test_monitoring_is_written_with_the_run_s_own_targets_and_nothing_is_written_over(tmp_path):
    command = write_monitoring(tmp_path / "out", tmp_path / "targets.json")
    assert str(tmp_path / "out" / "prometheus.yml") in command and "127.0.0.1" in command
    scrapes = yaml.safe_load((tmp_path / "out" / "prometheus.yml").read_text())["scrape_configs"]
    assert scrapes[0]["file_sd_configs"][0]["files"] == [str(tmp_path / "targets.json")]
    provider = yaml.safe_load((tmp_path / "out" / "grafana" / "dashboards" / "headrace.yml").read_text())["providers"][0]
    assert sorted(path.name for path in Path(provider["options"]["path"]).iterdir()) == [path.name for path in DASHBOARDS]
    with pytest.raises(ConfigError, match="not an empty folder"):
        write_monitoring(tmp_path / "out", tmp_path / "targets.json")
    assert Path(headrace.__file__).parents[2] / "cluster" / "observability" == OBSERVABILITY
