from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace import artifact
from headrace.decontaminate.match import Finds
from headrace.decontaminate.scan import HELD, HOLDERS, PARAGRAPHS, count_holders, paragraphs_of, scan, standing
from headrace.text.cuts import Cuts


@pytest.mark.parametrize(
    "cut, stands",
    [((0, 10), True), ((0, 11), False), ((12, 13), False), ((19, 30), False), ((20, 30), True), ((5, 40), False)],
)
def test_an_n_gram_that_overlaps_a_cut_is_no_longer_there(cut, stands):
    finds = Finds(*(np.array([value]) for value in (1, 0, 10, 20)))
    cuts = Cuts.merged(*(np.array([value]) for value in (8, *cut)))
    assert standing(finds, np.array([7, 8, 9]), cuts).tolist() == [stands]
    assert standing(finds, np.array([7, 9, 8]), cuts).tolist() == [True]  # another document's cut


def test_of_many_cuts_those_of_the_document_are_looked_at():
    finds = Finds(np.array([0, 0, 0, 2]), np.zeros(4, int), np.array([0, 10, 30, 0]), np.array([5, 20, 40, 5]))
    cuts = Cuts.merged(np.array([1, 1, 2, 3]), np.array([5, 25, 0, 3]), np.array([8, 31, 99, 4]))
    assert standing(finds, np.array([1, 2, 3]), cuts).tolist() == [True, True, False, False]


def test_paragraphs_are_parted_by_blank_lines():
    text = "one two\nthree\n \t\nfour five six\n\n\n\n...\n\nseven 8 9\n"
    rows = paragraphs_of(5, text, 2).to_pylist()
    assert [text[row["start"] : row["end"]] for row in rows] == ["one two\nthree", "four five six", "seven 8 9\n"]
    assert [(row["words"], row["n_grams"]) for row in rows] == [(3, 2), (3, 2), (3, 1)]  # `8 9` has no letter
    assert paragraphs_of(5, "", 2).schema == PARAGRAPHS


def test_documents_of_each_n_gram_are_counted():
    rows = pa.table([pa.array(column, pa.int64()) for column in ([1, 1, 4], [7, 9, 7])], schema=HOLDERS)
    found = count_holders(rows)
    assert found.schema == HELD
    assert found.to_pylist() == [{"gram": 1, "documents": 2}, {"gram": 4, "documents": 1}]
    assert count_holders(HOLDERS.empty_table()).schema == HELD


def test_rejected_documents_and_cut_passages_are_not_looked_at(tmp_path, write_unit, index_of):
    _, folder = index_of(["one two three four"], 4)
    text = "x one two three four y"
    unit = write_unit(tmp_path, 0, [text, text, text, "nothing here"], rejected={1}, cuts=[(2, 8, 11)])
    out = tmp_path / "out"
    result = scan({**unit, "index": str(folder), "n": 4, "judge": "ngram"}, out)
    assert artifact.read_table(out / "work" / "found" / "u00000.parquet").to_pylist() == [
        {"doc": 0, "gram": 0, "start": 2, "end": 20, "chars": 22}
    ]
    assert artifact.read_table(out / "work" / "holders" / "u00000.parquet").to_pylist() == [{"gram": 0, "doc": 0}]
    assert result.counters == {"scanned_bytes": 22 + 22 + 12}
