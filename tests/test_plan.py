from __future__ import annotations

import io

from rich.console import Console

from headrace.config import validate
from headrace.plan import _presets, disk, layout_plan, layout_rows, near_duplicates
from headrace.run import RunConfig


def run_config(**values):
    return validate(RunConfig, {"out": "x", "sources": [{"name": "a", "kind": "prose", "path": "a.jsonl"}], **values}, "test")


def config(**dedup):
    return run_config(dedup=dedup)


def printed(rows):
    console = Console(file=io.StringIO(), width=80)
    console.print(_presets(rows))
    return console.file.getvalue()


def test_every_preset_is_shown_and_the_run_s_own_marked():
    lines = printed(near_duplicates(config(document={"preset": "nemo"}))).splitlines()
    (marked,) = (line for line in lines if ">" in line)
    assert marked.split() == [">", "nemo", "24", "chars", "20", "x", "13", "0.794", "17.7", "38.2", "67.7", "92.4", "99.7", "no"]
    for name in ("headrace", "fineweb", "refinedweb", "slimpajama", "gpt3", "data-juicer"):
        assert sum(name in line for line in lines) == 1


def test_settings_of_one_s_own_are_a_row_more():
    rows = near_duplicates(config(document={"bands": 20}))
    assert [row["preset"] for row in rows if row["chosen"]] == ["this run"]
    assert rows[-1]["probability"]["0.80"] == 0.9746
    assert not [row for row in near_duplicates(config(document=None)) if row["chosen"]]


def layout_of(train, **values):
    config = run_config(train=train, **values)
    return layout_plan(config, config.sized_model)


def test_the_layout_is_shown_with_what_a_worker_needs():
    layout = layout_of(
        {"layout": {"data": 2, "tensor": 2, "pipeline": 4, "zero": 1}, "batch": {"global": 64, "micro": 2}, "precision": "bf16"}
    )
    assert (layout["workers"], layout["accumulation_steps"], layout["verdict"]) == (16, 16, "legal")
    assert layout["bubble"] == round(3 / 19, 4)
    assert len(layout["stage_bytes"]) == 4
    need = layout["bytes"]
    assert need["total"] == sum(need[part] for part in ("parameters", "gradients", "optimizer", "activations", "buffers"))
    assert need["available"] > need["total"] == max(sum(stage.values()) - stage["host"] for stage in layout["stage_bytes"])
    rows = dict(layout_rows(layout))
    assert rows["layout"] == "16 workers: data 2 x tensor 2 x pipeline 4, ZeRO 1, bf16: legal"
    assert f"a worker (stage {need['stage']}, the largest): parameters " in rows["memory"]
    said = "\n".join(text for _, text in layout_rows(layout))
    assert "2 sequences x 2 data-parallel x 16 accumulated = 64 sequences a step" in said and "the pipeline idles for 16% of a step" in said


def test_a_legal_layout_that_is_unwise_says_so():
    layout = layout_of({"layout": {"data": 1, "zero": 3}})
    (hint,) = layout["hints"]
    assert f"note: {hint}" in [text for _, text in layout_rows(layout)] and "saves nothing" in hint


def test_an_automatic_layout_is_explained_where_the_memory_is_known():
    layout = layout_of({"layout": "auto", "num_workers": 2})
    assert (layout["data"], layout["zero"]) == (2, 1)
    assert any("is the least sharded layout that fits" in text for _, text in layout_rows(layout))
    elsewhere = layout_of({"layout": "auto", "num_workers": 2}, cluster={"address": "http://127.0.0.1:8265"})
    assert elsewhere["bytes"] is None and elsewhere["verdict"] == "open"
    ((_, said),) = layout_rows(elsewhere)
    assert said == "2 workers, layout auto: the workers choose one when they start, by the memory that they find"


def test_a_range_of_workers_says_who_waits():
    layout = layout_of({"num_workers": [3, 3], "batch": {"global": 32, "micro": 8}})
    assert (layout["workers"], layout["idle"], layout["data"], layout["accumulation_steps"]) == (3, 1, 2, 2)
    assert layout_rows(layout)[0][1].startswith("3 workers, 1 idle: data 2 x ")


def test_the_disk_holds_the_checkpoints_that_stay():
    def checkpoints(**settings):
        return disk(run_config(train={"steps": 1000, "checkpoint": settings}), 0, 0, 1)["checkpoints"] // 12

    assert checkpoints(every=100, keep=5) == 6, "one more while the sixth is written"
    assert checkpoints(every=500, keep=5) == 4, "0, 500, 1000"
    assert checkpoints(every="auto", keep=5) == 6
    assert checkpoints(every=100, keep=5, milestones=500, best=1) == 9
