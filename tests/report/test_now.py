from headrace.report import gather
from headrace.report.now import now

UNITS = {"phase": "read", "done": 3, "total": 40, "unit": "units", "elapsed_s": 6.0, "left_s": 74.0}
STEPS = {"done": 5, "total": 20, "unit": "steps", "elapsed_s": 6.0, "left_s": 15.0, "tokens": 500, "tokens_per_s": 50.0, "loss": 2.0}


def line(stage, event, **what):
    return {"time": 1.0, "stage": stage, "event": event, **what}


def test_the_last_word_of_each_stage_at_work(folder):
    folder.event(1, "cluster", "finished", seconds=1.0)
    folder.event(2, "ingest", "progress", **UNITS)
    folder.event(3, "ingest", "progress", **{**UNITS, "done": 4})
    (found,) = gather(folder.path)["now"]
    assert (found["stage"], found["done"], found["total"], found["left_s"]) == ("ingest", 4, 40, 74.0)
    assert found["text"] == "ingest/read: 4 of 40 units, 1 min 14 s left"


def test_what_is_over_is_left_out():
    began = line("ingest", "progress", **UNITS)
    assert now([began, line("ingest", "finished", seconds=9.0)]) == []
    assert now([began, line("data", "failed", job="a", exit_code=1, message="x")]) == []
    assert now([began, line("cluster", "finished", seconds=1.0)]) == []
    assert now([began, line("shutdown", "finished", seconds=1.0)]) == []
    assert now([line("train", "progress", **{**STEPS, "done": 20})]) == []


def test_training_and_evaluation_go_on_side_by_side():
    results = {"done": 1, "total": 3, "unit": "results", "elapsed_s": 9.0, "left_s": 6.0}
    found = now([line("train", "progress", **STEPS), line("evaluate", "progress", **results), line("evaluate", "job finished", job="a")])
    assert [each["stage"] for each in found] == ["train", "evaluate"]
