from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace import artifact
from headrace.dedup import exact, signatures
from headrace.dedup.candidates import BANDS
from headrace.dedup.minhash import HashFamily, band_keys, minhash_signature
from headrace.text.shingles import word_shingles

TEXTS = [
    "",
    "one two three four",
    "one two three four five",
    "a b c d e f g h",
    "One, two; three four FIVE!",
    "rejected before it got here",
]


@pytest.fixture
def signed(tmp_path):
    first = 2 << 32
    names = [f"d{row}" for row in range(len(TEXTS))]
    columns = {"doc": first + np.arange(len(TEXTS)), "id": names, "text": TEXTS}
    artifact.write_table(pa.table(columns), tmp_path / "d.parquet", row_group_rows=2)
    reasons = pa.array([None] * (len(TEXTS) - 1) + ["x"], pa.string())
    artifact.write_table(pa.table({"reason": reasons}), tmp_path / "v.parquet")
    copies = pa.Table.from_pylist([{"rank": 2, "doc": first + 3, "kept": 1, "kept_preference": 0}], schema=exact.EXACT_REMOVED)
    artifact.write_table(copies, tmp_path / "copies.parquet")
    paths = {
        "documents": str(tmp_path / "d.parquet"),
        "verdicts": [str(tmp_path / "v.parquet")],
        "copies": str(tmp_path / "copies.parquet"),
    }
    unit = {
        "id": "u00002",
        "rank": 2,
        "priority_rank": 7,
        "quality": None,
        "document": {"bands": 3, "rows": 2, "shingle": {"unit": "words", "size": 5}},
        "sentence": None,
        "token": None,
        "work": str(tmp_path / "work"),
        **paths,
    }
    return unit, signatures.sign(unit, tmp_path), tmp_path / "work"


def test_signatures_are_of_the_documents_kept_so_far(signed):
    _, result, work = signed
    assert result.counters == {"documents_too_short_to_compare": 2}
    hashes = artifact.read_table(work / "exact" / "u00002.parquet")
    assert hashes.schema == exact.EXACT
    assert hashes["doc"].to_pylist() == [(2 << 32) + row for row in range(5)]
    assert set(hashes["preference"].to_pylist()) == {7 << 24}
    high, low = exact.content_hashes(TEXTS[:5])
    assert np.array_equal(hashes["high"].to_numpy(), high)
    assert np.array_equal(hashes["low"].to_numpy(), low)
    table = artifact.read_table(work / "signatures" / "u00002.parquet")
    assert table["shingles"].to_pylist() == [0, 0, 1, 4, 1]
    offsets, shingles = word_shingles(TEXTS[:5])
    family = HashFamily.draw(6, signatures.SEED)
    for row in (2, 3, 4):
        keys = band_keys(minhash_signature(shingles[offsets[row] : offsets[row + 1]], family), 3, 2)
        assert table["bands"][row].as_py() == keys.tolist()
    assert table["bands"][2] == table["bands"][4]


def test_bands_are_those_of_documents_with_shingles_that_are_no_copies(signed, tmp_path):
    unit, _, work = signed
    signatures.spread_bands(unit, tmp_path)
    bands = artifact.read_table(work / "bands" / "u00002.parquet")
    assert bands.schema == BANDS
    assert bands["doc"].to_pylist() == [(2 << 32) + row for row in (2, 2, 2, 4, 4, 4)]
    assert set(bands["preference"].to_pylist()) == {7 << 24}
    table = artifact.read_table(work / "signatures" / "u00002.parquet")
    assert bands["key"].to_pylist() == table["bands"][2].as_py() + table["bands"][4].as_py()
