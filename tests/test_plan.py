from __future__ import annotations

import io

from rich.console import Console

from headrace.config import validate
from headrace.plan import _presets, near_duplicates
from headrace.run import RunConfig


def config(**dedup):
    return validate(RunConfig, {"out": "x", "sources": [{"name": "a", "kind": "prose", "path": "a.jsonl"}], "dedup": dedup}, "test")


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
