"""The synthetic corpus: its known duplicates are what it says they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace import artifact, schema
from similarity import jaccard, shingle_sets
from synthetic import COPIED, EDITED, described, judged, plan, similarities, texts, write_unit

NUMBERS = np.arange(300)


def test_similarities_are_exact():
    originals, words, _ = described(NUMBERS)
    written = texts(NUMBERS).to_pylist()
    sets = shingle_sets(written)
    assert [len(text.split()) for text in written] == words.tolist()
    assert similarities(NUMBERS).tolist() == pytest.approx([jaccard(sets[number], sets[originals[number]]) for number in NUMBERS])
    assert all(written[number] == written[originals[number]] for number in NUMBERS[NUMBERS % 10 == COPIED])


def test_originals_come_first_and_repeat_nothing():
    originals, _, _ = described(NUMBERS)
    later = NUMBERS % 10 >= EDITED
    assert (originals[~later] == NUMBERS[~later]).all()
    assert (originals[later] < NUMBERS[later]).all()
    assert (originals % 10 < EDITED).all()
    sets = shingle_sets(texts(NUMBERS[~later]).to_pylist())
    distinct = np.unique(np.concatenate(sets))
    assert len(distinct) > 0.999 * sum(map(len, sets))


def test_a_document_does_not_depend_on_its_neighbours():
    assert texts(NUMBERS[17:19]).to_pylist() == texts(NUMBERS).to_pylist()[17:19]


def test_units_hold_every_document_once(tmp_path):
    units = plan(200_000)
    for unit in units:
        write_unit(unit, tmp_path)
    tables = [artifact.read_table(tmp_path / "documents" / f"{unit['id']}.parquet") for unit in units]
    assert all(table.schema == schema.DOCUMENTS for table in tables)
    together = pa.concat_tables(tables)
    assert together["id"].to_pylist() == [str(number) for number in range(len(together))]
    assert (np.diff(together["doc"].to_numpy()) > 0).all()


def test_verdicts_are_judged_by_what_is_known():
    unit = {"first": 0, "stop": 300}
    similar = similarities(NUMBERS)
    repeats = (NUMBERS % 10 == COPIED) | ((NUMBERS % 10 == EDITED) & (similar >= 0.75))
    perfect = judged([unit], [pa.chunked_array([pa.array(np.where(repeats, "why", None))])], 0.75)
    assert (perfect["recall_exact"], perfect["recall_near"], perfect["wrong"]) == (1, 1, 0)
    assert 0.9 < perfect["expected_near"] < 1
    wrong = judged([unit], [pa.chunked_array([pa.array(np.where(repeats, None, "why"))])], 0.75)
    assert (wrong["recall_exact"], wrong["recall_near"], wrong["wrong"]) == (0, 0, int((~repeats).sum()))
