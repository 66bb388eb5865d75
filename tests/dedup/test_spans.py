from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from headrace import artifact
from headrace.dedup.spans import REPEATS, SPANS, TEXT_UNITS, documents_of, repeats, spread_spans, whole_documents


def table(rows, columns):
    return pa.table([pa.array([row[place] for row in rows], field.type) for place, field in enumerate(columns)], schema=columns)


def cut(rows, keep):
    found = repeats(table(sorted(rows), SPANS), keep)
    assert found.schema == REPEATS
    assert all(row["rank"] == row["doc"] >> 32 for row in found.to_pylist())
    return [(row["doc"], row["position"], row["kept"]) for row in found.to_pylist()]


FAR = 5 << 32
OCCURRENCES = [(7, 1, 2, 0), (7, 0, FAR, 4), (7, 1, 2, 1), (7, 1, 1, 9), (8, 0, 1, 0), (9, 1, FAR, 3), (9, 1, FAR, 1)]


@pytest.mark.parametrize(
    "keep, expected",
    [
        ("first", [(1, 9, FAR), (2, 0, FAR), (2, 1, FAR), (FAR, 3, FAR)]),
        (2, [(2, 0, FAR), (2, 1, FAR)]),
        (3, [(2, 1, FAR)]),
        (4, []),
        ("none", [(FAR, 4, 1), (1, 9, FAR), (2, 0, FAR), (2, 1, FAR), (FAR, 1, FAR), (FAR, 3, FAR)]),
    ],
)
def test_occurrences_are_ordered_by_preference_document_and_position(keep, expected):
    assert cut(OCCURRENCES, keep) == expected


@pytest.mark.parametrize("keep, expected", [("first", [(1, 0, 1 << 60)]), (2, [(1, 0, 1 << 60)]), (3, []), ("none", [(1, 0, 1 << 60)])])
def test_documents_of_an_index_come_first_and_are_not_cut(keep, expected):
    assert cut([(7, 0, 1, 0), (7, -9, (1 << 60) + 1, 0), (7, -9, 1 << 60, 5)], keep) == expected


def test_no_spans_have_no_repeats():
    assert cut([], "first") == cut([], "none") == []


@pytest.mark.parametrize("group", [1, 2, 3, 7, 100])
def test_documents_come_whole_whatever_the_row_groups(tmp_path, group):
    doc = [3, 3, 3, 3, 3, 8, 9, 9, 12, 12, 12, 12]
    artifact.write_table(table([(d, place, place, place, 1) for place, d in enumerate(doc)], TEXT_UNITS), tmp_path / "u.parquet", group)
    found = list(whole_documents(tmp_path / "u.parquet", ["doc", "end"]))
    assert list(itertools.chain(*(rows["end"].to_pylist() for rows in found))) == list(range(len(doc)))
    assert [number for rows in found for number in dict.fromkeys(rows["doc"].to_pylist())] == [3, 8, 9, 12]
    assert len(found) >= (4 if group == 1 else 1)
    documents, first = documents_of(pa.concat_tables(found))
    assert documents.tolist() == [3, 8, 9, 12]
    assert first.tolist() == [0, 5, 6, 8, 12]


def test_a_table_without_rows_has_no_documents(tmp_path):
    artifact.write_table(TEXT_UNITS.empty_table(), tmp_path / "u.parquet")
    assert list(whole_documents(tmp_path / "u.parquet", ["doc"])) == []


@pytest.mark.parametrize("span", [1, 2, 3])
def test_spans_are_consecutive_units_of_documents_that_stand(tmp_path, span):
    units = [(row, hashed) for row, text in enumerate(["abcab", "abc", "ab", "", "bcab"]) for hashed in map(ord, text)]
    artifact.write_table(
        table([(row, 0, 0, hashed, 1) for row, hashed in units], TEXT_UNITS), tmp_path / "work" / "text-units" / "u.parquet", 2
    )
    artifact.write_table(pa.table({"text": [""] * 5}), tmp_path / "d.parquet")
    artifact.write_table(pa.table({"reason": pa.array([None, "x", None, None, None], pa.string())}), tmp_path / "v.parquet")
    paths = {"documents": str(tmp_path / "d.parquet"), "verdicts": [str(tmp_path / "v.parquet")], "work": str(tmp_path / "work")}
    levels = {"document": None, "sentence": {"span": span}, "token": None}
    spread_spans({"id": "u", "priority_rank": 3, "quality": None, **levels, **paths}, tmp_path)
    found = artifact.read_table(tmp_path / "work" / "spans" / "u.parquet")
    assert found.schema == SPANS
    expected = [
        (text[place : place + span], row, place)
        for row, text in ((0, "abcab"), (2, "ab"), (4, "bcab"))
        for place in range(len(text) - span + 1)
    ]
    assert list(zip(found["doc"].to_pylist(), found["position"].to_pylist())) == [(row, place) for _, row, place in expected]
    assert set(found["preference"].to_pylist()) == {3 << 24}
    hashes = found["hash"].to_pylist()
    assert len(set(hashes)) == len({text for text, _, _ in expected}) == len(set(zip(hashes, (text for text, _, _ in expected))))
    assert np.log2(max(hashes)) > 60
