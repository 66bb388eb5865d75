from __future__ import annotations

import pytest

from headrace.config import ConfigError, validate
from headrace.dedup.document import DocumentDedup
from headrace.dedup.levels import Dedup, stage_config
from headrace.dedup.minhash import optimal_param
from headrace.dedup.presets import PRESETS, Shingle, preset_table

# Bands, rows, and the candidate probability at similarities of 0.7, 0.75, 0.8, 0.85 and 0.9, computed by hand from 1 - (1 - s^r)^b.
PUBLISHED = {
    "fineweb": (14, 8, 0.719, [0.565, 0.772, 0.924, 0.988, 1.0]),
    "nemo": (20, 13, 0.794, [0.177, 0.382, 0.677, 0.924, 0.997]),
    "data-juicer": (25, 10, 0.725, [0.511, 0.765, 0.942, 0.996, 1.0]),
    "slimpajama": (9, 13, 0.844, [0.084, 0.195, 0.399, 0.686, 0.929]),
    "refinedweb": (450, 20, 0.737, [0.302, 0.761, 0.995, 1.0, 1.0]),
    "gpt3": (10, 1, 0.1, [1.0, 1.0, 1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_has_the_published_shapes_and_their_probabilities(name):
    bands, rows, estimate, probabilities = PUBLISHED[name]
    (row,) = (row for row in preset_table(None) if row["preset"] == name)
    assert (row["bands"], row["rows"]) == (bands, rows)
    assert row["threshold_estimate"] == pytest.approx(estimate, abs=0.0006)
    assert list(row["probability"].values()) == pytest.approx(probabilities, abs=0.0006)
    assert list(row["probability"]) == ["0.70", "0.75", "0.80", "0.85", "0.90"]


def test_shapes_that_are_chosen_by_a_threshold_are_what_datasketch_chooses():
    for name, functions in (("slimpajama", 128), ("data-juicer", 256)):
        assert optimal_param(PRESETS[name]["threshold"], functions) == (PRESETS[name]["bands"], PRESETS[name]["rows"])


def test_the_default_is_this_project_s_definition():
    config = DocumentDedup()
    assert (config.shingle, config.bands, config.rows, config.threshold, config.verify) == (Shingle(), 14, 8, 0.75, True)
    assert (config.shingle.unit, config.shingle.size, config.rule) == ("words", 5, "dominated")
    assert DocumentDedup(preset="headrace") == config


def test_a_preset_gives_its_settings_and_keys_beside_it_override_them():
    nemo = DocumentDedup(preset="nemo")
    assert (nemo.shingle, nemo.bands, nemo.rows, nemo.verify) == (Shingle(unit="characters", size=24), 20, 13, False)
    given = DocumentDedup.model_validate({"preset": "nemo", "shingle": {"size": 5}, "verify": True, "threshold": 0.9, "rule": "components"})
    assert (given.shingle, given.bands, given.verify, given.threshold) == (Shingle(unit="characters", size=5), 20, True, 0.9)
    again = DocumentDedup.model_validate(given.model_dump())  # as a run's folder keeps it
    assert again == given


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"document.preset = 'fineweb2': .*did you mean 'fineweb'"):
        validate(Dedup, {"document": {"preset": "fineweb2"}}, "test")


def test_the_stage_depends_on_the_settings_and_not_on_the_preset_s_name():
    by_name = Dedup(document=DocumentDedup(preset="fineweb"))
    by_hand = Dedup(document=DocumentDedup(verify=False))
    assert stage_config(by_name, {}, []) == stage_config(by_hand, {}, []) != stage_config(Dedup(), {}, [])
    assert stage_config(Dedup(), {}, [])["normalisation"] == "whitespace-1"


@pytest.mark.parametrize(
    "given, chosen",
    [({}, "headrace"), ({"preset": "gpt3"}, "gpt3"), ({"verify": False}, "this run"), ({"preset": "nemo", "bands": 21}, "this run")],
)
def test_the_table_marks_the_row_in_use(given, chosen):
    table = preset_table(DocumentDedup.model_validate(given).model_dump())
    assert [row["preset"] for row in table if row["chosen"]] == [chosen]
    assert len(table) == len(PRESETS) + (chosen == "this run")
    assert not [row for row in preset_table(None) if row["chosen"]]


@pytest.mark.parametrize(
    "shingle, text, count",
    [
        (Shingle(), "one two three four five six", 2),
        (Shingle(size=1), "one two one", 3),
        (Shingle(size=13), "a b c d e f g h i j k l", 0),
        (Shingle(unit="characters", size=3), "a  b\n", 1),
        (Shingle(unit="characters", size=2), "東京都", 2),
        (Shingle(size=2), "東京都", 0),
        (Shingle(unit="characters", size=1), "", 0),
    ],
)
def test_shingles_are_of_words_or_characters(shingle, text, count):
    offsets, shingles = shingle.of([text, text])
    assert offsets.tolist() == [0, count, 2 * count]
    assert shingles[:count].tolist() == shingles[count:].tolist()
