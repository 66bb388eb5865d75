from __future__ import annotations

import numpy as np
import pytest

from headrace.dedup.shingle_sets import SetWriter, ShingleSets

SETS = [[1, 5, 9], [], [2**64 - 1], list(range(100))]
ROWS = np.array([0, 3, 4, 77])


def write(path):
    with SetWriter(path, len(SETS)) as writer:
        for part in (slice(0, 1), slice(1, 4)):  # as they come, batch by batch
            values = [np.array(found, np.uint64) for found in SETS[part]]
            writer.write(ROWS[part], np.cumsum([0, *map(len, values)]), np.concatenate(values))
    return ShingleSets.open(path)


def test_sets_come_back_by_row(tmp_path):
    sets = write(tmp_path / "a" / "u.sets")
    places = sets.places(np.array([77, 0, 4, 3, 0]))
    assert [sets.shingles[sets.offsets[place] : sets.offsets[place + 1]].tolist() for place in places] == [SETS[n] for n in (3, 0, 2, 1, 0)]
    assert sets.places(np.empty(0, np.int64)).tolist() == []


def test_no_documents(tmp_path):
    with SetWriter(tmp_path / "u.sets", 0):
        pass
    assert len(ShingleSets.open(tmp_path / "u.sets").places(np.empty(0, np.int64))) == 0


def test_a_row_that_is_not_there_is_a_mistake_of_ours(tmp_path):
    sets = write(tmp_path / "u.sets")
    with pytest.raises(AssertionError):
        sets.places(np.array([1]))


def test_documents_that_never_came_are_noticed(tmp_path):
    with pytest.raises(AssertionError, match="0 of 2 documents"), SetWriter(tmp_path / "u.sets", 2):
        pass


@pytest.mark.parametrize("bit", [0, 63])
def test_a_flipped_bit_is_noticed(tmp_path, bit):
    write(tmp_path / "u.sets")
    content = bytearray((tmp_path / "u.sets").read_bytes())
    content[-400 + bit // 8] ^= 1 << bit % 8
    (tmp_path / "u.sets").write_bytes(content)
    sets = ShingleSets.open(tmp_path / "u.sets")
    assert sets.places(ROWS[:3]).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"u.sets: the shingles of row 77 are damaged"):
        sets.places(ROWS)


@pytest.mark.parametrize("end", [0, 8, 100, -1, -8])
def test_a_file_that_was_cut_short_is_noticed(tmp_path, end):
    write(tmp_path / "u.sets")
    (tmp_path / "u.sets").write_bytes((tmp_path / "u.sets").read_bytes()[:end])
    with pytest.raises(ValueError, match=r"u.sets: no whole file of shingle sets"):
        ShingleSets.open(tmp_path / "u.sets")
