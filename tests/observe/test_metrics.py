from __future__ import annotations

import pytest

from headrace.observe.metrics import MAX_VALUES, METRICS, Meter


@pytest.fixture
def recorded(monkeypatch):
    """What reaches Ray's own metrics."""
    from ray.util import metrics

    found = []
    monkeypatch.setattr(metrics.Metric, "_record", lambda self, value, tags: found.append((self._name, value, tags)))
    return found


def test_names_and_labels_are_those_that_are_listed(recorded):
    meter = Meter("trial")
    meter.count("documents_dropped", 3, stage="filters", source="mill", reason="too_short")
    meter.set("train_loss", 2.5)
    assert recorded == [
        ("headrace_documents_dropped", 3, {"run": "trial", "stage": "filters", "source": "mill", "reason": "too_short"}),
        ("headrace_train_loss", 2.5, {"run": "trial"}),
    ]
    assert all(metric.says and "run" not in metric.labels for metric in METRICS.values())


def test_nothing_is_said_of_nothing(recorded):
    meter = Meter("trial")
    meter.count("documents_in", 0, stage="ingest", source="mill")
    for value in (None, float("nan"), float("inf")):
        meter.set("train_loss", value)
    assert recorded == []


def test_values_of_a_label_are_bounded_in_number(recorded):
    meter = Meter("trial")
    for number in range(MAX_VALUES + 50):
        meter.count("documents_dropped", 1, stage="ingest", source="mill", reason=f"r{number}")
    meter.count("documents_dropped", 1, stage="ingest", source="mill", reason="r0")
    reasons = [tags["reason"] for _, _, tags in recorded]
    assert len(set(reasons)) == MAX_VALUES + 1 and reasons.count("other") == 50 and reasons[-1] == "r0"


def test_an_error_ends_nothing_and_is_said_once(monkeypatch, caplog):
    from ray.util import metrics

    def fail(*_):
        raise RuntimeError("no agent")

    monkeypatch.setattr(metrics.Metric, "_record", fail)
    meter = Meter("trial")
    for _ in range(3):
        meter.set("train_loss", 1.0)
    assert [record.message.split(" (")[0] for record in caplog.records] == ["metrics: train_loss is not set"]
