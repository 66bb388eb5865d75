from __future__ import annotations

import re

import pyarrow as pa
import pytest

from headrace import artifact
from headrace.report import gather, summary_table
from headrace.report.contamination import section_of
from headrace.report.page import render

RULES = {"n": 13, "judge": "ngram", "share": None, "action": "drop", "max_documents": None}
NAMES = ("benchmark", "item", "row", "n_grams", "hit_n_grams", "suppressed_n_grams", "documents", "contaminated", "text")
ITEMS = [
    ("gsm8k", "gsm8k#0", 0, 30, 30, 0, 1, True, "How many <b>ducks</b>?"),
    ("gsm8k", "gsm8k#1", 1, 20, 5, 0, 3, True, "x" * 500),
    ("gsm8k", "gsm8k#2", 2, 20, 4, 4, 0, False, "a quotation"),
    ("gsm8k", "gsm8k#3", 3, 0, 0, 0, 0, False, "7"),
    ("arc", "q7", 0, 9, 0, 0, 0, False, "not there"),
]


@pytest.fixture
def decontaminated(folder):
    """A whole run that looked for two evaluation sets."""
    folder.whole()
    folder.stage("decontaminate", "eeee", {"u0": ("books", 30, {}), "u1": ("web", 50, {"contaminated": 2})})
    path = folder.path / "data" / "decontaminate" / "eeee"
    manifest = artifact.storage.read_json(path / "manifest.json")
    manifest["config"] = RULES
    manifest["totals"]["documents_cut"] = 1
    folder.json("data/decontaminate/eeee/manifest.json", manifest)
    artifact.write_table(pa.table({name: list(column) for name, column in zip(NAMES, zip(*ITEMS))}), path / "items" / "all.parquet")
    return folder


def scores(folder, step, fingerprint="eeee", value=2.0):
    rows = [
        {"metric": "bits_per_byte", "source": name, "items": part, "value": value, "stderr": 0.25, "ci95": None, "n_documents": size}
        for name, part, size in (("gsm8k", "all", 4), ("gsm8k", "clean", 2), ("gsm8k", "contaminated", 2), ("arc", "all", 1))
    ]
    result = {"suite": "benchmarks", "decontaminate_fingerprint": fingerprint, "metrics": rows, "definition": "What is scored here."}
    folder.json(f"eval/step-{step:08d}/benchmarks.json", result)


def tables(page):
    found = re.findall(r"<tbody>(.*?)</tbody>", page)
    return [[re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr[^>]*>(.*?)</tr>", body)] for body in found]


def test_a_run_that_looks_for_nothing_has_no_such_section(folder):
    report = gather(folder.whole())
    assert report["contamination"] is None
    assert section_of(None) == ""
    assert "Evaluation sets" not in render(report)


def test_hit_rates_by_set_and_the_items_that_most_documents_hold(decontaminated):
    found = gather(decontaminated.path)["contamination"]
    assert found["benchmarks"] == [
        {"name": "gsm8k", "items": 4, "contaminated": 2, "suppressed": 1, "not_searched": 1, "hit_rate": 0.5},
        {"name": "arc", "items": 1, "contaminated": 0, "suppressed": 0, "not_searched": 0, "hit_rate": 0.0},
    ]
    assert (found["documents_removed"], found["documents_cut"], found["scores"]) == (2, 1, None)
    assert [row["item"] for row in found["items"]] == ["gsm8k#1", "gsm8k#0"]
    page = section_of(found)
    sets, items = tables(page)
    assert sets == [["gsm8k", "4", "2", "50.0 %", "1", "1"], ["arc", "1", "0", "0.0 %", "0", "0"]]
    assert items[1] == ["gsm8k:gsm8k#0", "How many &lt;b&gt;ducks&lt;/b&gt;?", "1", "30 of 30"]
    assert len(items[0][1]) == 120
    assert "an n-gram of 13 words: 2 documents removed, 1 cut" in page


def test_scores_are_those_of_the_newest_checkpoint_on_these_very_items(decontaminated):
    scores(decontaminated, 10, value=3.0)
    scores(decontaminated, 20, fingerprint="another corpus")
    found = gather(decontaminated.path)["contamination"]
    assert found["scores"]["checkpoint"] == "step-00000010"
    page = section_of(found)
    assert tables(page)[2] == [
        ["arc", "3.000 ± 0.250", "1", "–", "–", "–", "–"],
        ["gsm8k", "3.000 ± 0.250", "4", "3.000 ± 0.250", "2", "3.000 ± 0.250", "2"],
    ]
    assert "What is scored here." in page


def test_a_suite_that_failed_says_why(decontaminated):
    decontaminated.json("eval/step-00000020/benchmarks.json", {"suite": "benchmarks", "status": "failed", "reason": "no <memory>"})
    assert "no &lt;memory&gt;" in section_of(gather(decontaminated.path)["contamination"])


@pytest.mark.parametrize(
    "rules, says",
    [({"judge": "item", "share": 0.7}, "70.0 % of an item"), ({"judge": "paragraph", "share": 0.5}, "a paragraph with 50.0 %")],
)
def test_the_rule_is_told(decontaminated, rules, says):
    found = gather(decontaminated.path)["contamination"]
    assert says in section_of({**found, "rules": {**RULES, **rules}})


def test_the_page_and_the_summary_name_it(decontaminated):
    report = gather(decontaminated.path)
    assert dict(summary_table(report))["evaluation items in the text"] == "2 of 5 (40.0 %)"
    page = render(report)
    assert "Evaluation sets in the text" in page
    assert "after decontamination" in page
    assert [stage["stage"] for stage in report["funnel"]] == ["ingest", "filters", "decontaminate", "split", "tokens"]
