import json
import math
import os

import pytest

from headrace.report import gather

KEYS = {
    "alarms", "baselines", "checkpoints", "config", "contamination", "duplicates", "external", "files", "funnel", "headrace_version",
    "model", "now", "run", "sources", "time", "tokens", "training", "updated", "verdict",
}  # fmt: skip


def test_keys_are_the_same_at_every_point_of_a_run_s_life(folder):
    assert gather(folder.path).keys() == KEYS
    folder.data()
    assert gather(folder.path).keys() == KEYS
    folder.whole()
    assert gather(folder.path).keys() == KEYS


def test_a_run_of_which_nothing_is_there(folder):
    found = gather(folder.path)
    assert found["verdict"]["state"] == "empty"
    assert found["funnel"] == found["sources"] == found["checkpoints"] == []
    assert found["model"] is found["training"] is found["baselines"] is found["tokens"] is None


def test_the_funnel_overall_and_by_source(folder):
    found = gather(folder.whole())
    filters = found["funnel"][1]
    assert (filters["stage"], filters["rows_in"], filters["rows_out"]) == ("filters", 100, 80)
    assert list(filters["rejected"].items()) == [("too_short", 15), ("symbols", 5)]
    web = found["sources"][1]
    assert web["source"] == "web"
    assert web["stages"]["ingest"] == {"rows_in": 62, "rows_out": 60, "rejected": {"no_json": 2}}
    assert web["stages"]["filters"]["rejected"] == {"too_short": 5, "symbols": 5}
    assert web["tokens"]["train"]["tokens"] == 3000
    assert "units" not in filters


def test_the_artifact_that_the_run_names_is_reported(folder):
    folder.data()
    folder.stage("filters", "eeee", {"u0": ("books", 40, {})})
    folder.json("data/current.json", {"ingest": "aaaa", "filters": "bbbb"})
    assert [(s["stage"], s["fingerprint"]) for s in gather(folder.path)["funnel"]][:2] == [("ingest", "aaaa"), ("filters", "bbbb")]
    folder.json("data/current.json", {"ingest": "aaaa", "filters": "not made yet"})
    assert [s["stage"] for s in gather(folder.path)["funnel"]] == ["ingest", "split", "tokens"]


def test_without_such_names_it_is_the_newest(folder):
    folder.data()
    folder.stage("filters", "eeee", {"u0": ("books", 40, {})})
    os.utime(folder.path / "data/filters/bbbb/manifest.json", (1, 1))
    assert gather(folder.path)["funnel"][1]["fingerprint"] == "eeee"


def test_tokens_and_model(folder):
    found = gather(folder.whole())
    assert found["tokens"]["train"] == {"documents": 60, "tokens": 6000, "bytes": 18000}
    assert found["model"]["parameters"] == 512 * 8  # optimizer state is no parameter
    assert found["model"]["layout"]["zero"] == 1


def test_checkpoints_that_are_kept_and_that_were_scored(folder):
    folder.whole()
    folder.checkpoint(5, status="failed")
    folder.checkpoint(15)
    for file in (folder.path / "train/checkpoints/step-00000010").iterdir():
        file.unlink()
    found = {entry["step"]: entry for entry in gather(folder.path)["checkpoints"]}
    assert list(found) == [5, 10, 15, 20]
    assert (found[5]["status"], found[5]["reason"]) == ("failed", "it broke")
    assert (found[10]["status"], found[10]["bytes"]) == ("scored", None)
    assert (found[15]["status"], found[15]["validation_loss"]) == ("not scored", None)
    assert (found[20]["bytes"], found[20]["validation_loss"]) == (3000, 3.0)
    assert found[20]["scores"]["web"]["bits_per_byte"]["value"] == 1.5


def test_the_same_folder_gives_the_same_report(folder):
    path = folder.whole()
    assert json.dumps(gather(path)) == json.dumps(gather(path))


def test_what_json_cannot_hold_is_null(folder):
    folder.data()
    folder.lines("train/metrics.jsonl", [{"step": 1, "loss": math.nan, "grad_norm": math.inf, "lr": 0.1, "tokens": 5, "tokens_per_s": 1.0}])
    json.dumps(gather(folder.path), allow_nan=False)


@pytest.mark.parametrize("part", ["train", "eval"])
def test_files_are_counted_below_each_part(folder, part):
    found = {entry["path"].split("/")[0]: entry for entry in gather(folder.whole())["files"]}
    assert found[part]["files"] > 0
    assert found[part]["bytes"] > 0


def test_models_from_outside_are_shown_while_their_text_is_the_run_s(folder):
    folder.whole()
    assert gather(folder.path)["external"] == []
    for name, fingerprint in (("now", "dddd"), ("before", "eeee")):
        folder.external(name, 1.25, fingerprint)
    (found,) = gather(folder.path)["external"]
    assert (found["name"], found["parameters"]) == ("now", 124_000_000)
    assert found["scores"]["books"]["bits_per_byte"]["value"] == 1.25
    baselines = json.loads((folder.path / "eval/baselines.json").read_text())
    folder.json("eval/baselines.json", baselines | {"bytes": 1200})
    assert [row["name"] for row in gather(folder.path)["external"]] == ["now"]
    folder.json("eval/baselines.json", baselines | {"bytes": 1300})  # more of it is scored than then
    assert gather(folder.path)["external"] == []
