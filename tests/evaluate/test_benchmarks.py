from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from headrace import artifact, storage
from headrace.artifact import Artifact
from headrace.evaluate import benchmarks
from headrace.evaluate.benchmarks import choose_items, encode, hit_rates, score_benchmarks
from headrace.evaluate.load import load_checkpoint
from headrace.model.aux import decoder_aux


def table_of(rows):
    return {name: [row[place] for row in rows] for place, name in enumerate(("benchmark", "row", "contaminated", "text"))}


def many(name, clean, contaminated):
    return [(name, row, row % (clean + contaminated) < contaminated, f"{name} {row}") for row in range(clean + contaminated)]


def parts(chosen):
    return {
        (name, part): [text for text, one in zip(chosen.text, of) if one] for name, part, of in chosen.parts()
    }  # fmt: skip


def test_clean_and_contaminated_items_are_the_first_of_their_kind_and_all_the_first_of_all():
    table = table_of(many("a", 90, 10) + many("b", 3, 0))
    found = parts(choose_items(table, 8))
    assert {key: len(texts) for key, texts in found.items()} == {
        ("a", "all"): 8,
        ("a", "clean"): 8,
        ("a", "contaminated"): 8,
        ("b", "all"): 3,
        ("b", "clean"): 3,
    }
    assert set(found["a", "all"]) <= set(found["a", "clean"]) | set(found["a", "contaminated"])
    more = parts(choose_items(table, 20))
    assert more["a", "clean"][:8] == found["a", "clean"]
    assert len(more["a", "contaminated"]) == 10
    everything = parts(choose_items(table, 1000))
    assert len(everything["a", "all"]) == 100


def test_the_choice_depends_on_set_and_row_only():
    rows = many("a", 50, 5)
    found = parts(choose_items(table_of(rows), 5))
    again = parts(choose_items(table_of(many("z", 9, 9) + rows[::-1]), 5))
    assert {key: again[key] for key in found} == found
    assert found["a", "all"] != [text for _, _, _, text in rows[:5]]


def test_hit_rates_are_those_of_whole_sets():
    rates = hit_rates(table_of(many("a", 6, 2) + many("b", 3, 0)))
    assert rates == [
        {"name": "a", "items": 8, "contaminated": 2, "hit_rate": 0.25},
        {"name": "b", "items": 3, "contaminated": 0, "hit_rate": 0.0},
    ]


@pytest.fixture
def decontaminated(tmp_path):
    """An artifact of decontamination as far as its items go."""
    rows = [
        ("a", 0, True, "!#%&'ALL"),
        ("a", 1, False, "()*+,-" * 9),
        ("a", 2, False, "./01"),
        ("b", 0, True, "234567"),
        ("b", 1, True, "!"),
    ]
    folder = tmp_path / "decontaminated"
    artifact.write_table(pa.table(table_of(rows)), folder / "items" / "all.parquet")
    storage.write_json(folder / "manifest.json", {"fingerprint": "abcd", "units": []})
    return Artifact.open(folder)


def test_the_result_says_what_was_scored_and_where_it_came_from(trained, decontaminated, tmp_path):
    _, checkpoint = trained
    out = tmp_path / "eval" / checkpoint.name / "benchmarks.json"
    result = score_benchmarks(checkpoint, decontaminated, 10, out)
    assert json.loads(out.read_text()) == result
    assert (result["suite"], result["checkpoint"], result["step"]) == ("benchmarks", "step-00000100", 100)
    assert result["checkpoint_manifest_sha256"] == hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest()
    assert (result["decontaminate_fingerprint"], result["benchmark_items"]) == ("abcd", 10)
    assert [(row["name"], row["items"], row["contaminated"]) for row in result["benchmarks"]] == [("a", 3, 1), ("b", 2, 2)]
    counts = {(row["source"], row["items"]): row["n_documents"] for row in result["metrics"] if row["metric"] == "bits_per_byte"}
    # An item of one token has nothing to score.
    assert counts == {("a", "all"): 3, ("a", "clean"): 2, ("a", "contaminated"): 1, ("b", "all"): 1, ("b", "contaminated"): 1}
    values = {(row["source"], row["items"], row["metric"]): row for row in result["metrics"]}
    assert values["a", "clean", "bits_per_byte"]["stderr"] is not None
    assert values["a", "contaminated", "bits_per_byte"]["stderr"] is None
    # Random weights know nothing: about uniform over 64 tokens of a byte each.
    assert values["a", "all", "bits_per_byte"]["value"] == pytest.approx(6.0, abs=0.5)


def test_scores_are_those_of_the_items_read_one_by_one(trained, decontaminated, tmp_path):
    _, checkpoint = trained
    loaded = load_checkpoint(checkpoint)
    result = score_benchmarks(checkpoint, decontaminated, 10, tmp_path / "benchmarks.json")
    ids = torch.tensor([loaded.tokenizer.encode("234567").ids])
    with torch.no_grad():
        logits = loaded.model(ids[:, :-1], decoder_aux(ids[:, :-1], loaded.eos))
    nats = float(torch.nn.functional.cross_entropy(logits[0], ids[0, 1:], reduction="sum"))
    found = {(row["source"], row["items"], row["metric"]): row["value"] for row in result["metrics"]}
    assert found["b", "contaminated", "bits_per_byte"] == pytest.approx(nats / math.log(2) / 5, rel=1e-5)


def test_a_long_item_is_scored_by_its_beginning(trained, monkeypatch):
    monkeypatch.setattr(benchmarks, "ITEM_TOKENS", 10)
    loaded = load_checkpoint(trained[1])
    ids, num_bytes = encode(loaded, ["!#%" * 30, "!#%", ""])
    assert [len(each) for each in ids] == [10, 3, 0]
    assert np.array_equal(num_bytes, [9, 2, 0])


def test_scores_are_the_same_every_time(trained, decontaminated, tmp_path):
    first, second = (score_benchmarks(trained[1], decontaminated, 2, tmp_path / f"{turn}.json") for turn in "ab")
    passing = {"seconds", "peak_rss_bytes"}
    assert {key: value for key, value in first.items() if key not in passing} == {k: v for k, v in second.items() if k not in passing}
