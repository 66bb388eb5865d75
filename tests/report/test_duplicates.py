from __future__ import annotations

import re

import pytest

from headrace import storage
from headrace.report import gather
from headrace.report.duplicates import section_of
from headrace.report.page import render

SOURCES = [
    {
        "source": "books",
        "rows_in": 30,
        "rows_out": 30,
        "removed": {},
        "removed_share": 0.0,
        "cut_chars": {"sentence": 0},
        "largest_group": 1,
    },
    {
        "source": "web",
        "rows_in": 50,
        "rows_out": 45,
        "removed": {"document": {"exact_duplicate": 2, "near_duplicate": 2}, "sentence": {"short_after_sentence_dedup": 1}},
        "removed_share": 0.1,
        "cut_chars": {"sentence": 1234},
        "largest_group": 4,
    },
]


@pytest.fixture
def deduplicated(folder):
    """A whole run that removed repeats."""
    folder.whole()
    folder.stage("dedup", "eeee", {"u0": ("books", 30, {}), "u1": ("web", 50, {"exact_duplicate": 2})})
    manifest = storage.read_json(folder.path / "data" / "dedup" / "eeee" / "manifest.json")
    manifest["totals"] |= {"shuffled_bytes_copies": 2240, "shuffled_bytes_candidates": 22400, "candidate_pairs": 7}
    folder.json("data/dedup/eeee/manifest.json", manifest)
    folder.json("data/dedup/eeee/sources.json", SOURCES)
    return folder


def cells(page):
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]


def test_a_run_that_removes_none_has_no_such_section(folder):
    report = gather(folder.whole())
    assert report["duplicates"] is None
    assert section_of(None) == ""
    assert "Integers brought together" not in render(report)


def test_what_went_by_source_and_what_was_shuffled_a_document(deduplicated):
    found = gather(deduplicated.path)["duplicates"]
    assert found["documents"] == 80
    assert found["sources"] == SOURCES
    assert found["shuffles"] == [
        {"name": "candidates", "bytes": 22400, "bytes_per_document": 280.0},
        {"name": "copies", "bytes": 2240, "bytes_per_document": 28.0},
    ]
    page = section_of(found)
    assert "largest group" in page
    assert cells(page)[1] == ["books", "30", "0", "0", "0", "0.0 %", "0", "1"]
    assert cells(page)[2] == ["web", "50", "2", "2", "1", "10.0 %", "1,234", "4"]
    assert ["candidates", "22.4 kB", "280.0"] in cells(page)
    assert "Together 24.6 kB, 308.0 bytes a document." in page
    assert page in render(gather(deduplicated.path))


def test_an_artifact_without_the_table_still_shows_its_shuffles(deduplicated):
    (deduplicated.path / "data" / "dedup" / "eeee" / "sources.json").unlink()
    assert "280.0" in section_of(gather(deduplicated.path)["duplicates"])
