from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.dedup.names import names_of, write_names

NAMES = ["a", None, "", "naïve", "x" * 5000, "a"]


def written(path, names=NAMES):
    write_names(pa.chunked_array([pa.array(names[:2], pa.string()), pa.array(names[2:], pa.string())]), path)
    return path


def test_names_come_back_by_row_however_often_and_in_whatever_order(tmp_path):
    path = written(tmp_path / "below" / "u.arrow")
    rows = np.array([5, 0, 4, 1, 1, 3, 2])
    assert names_of(path, rows) == [NAMES[row] for row in rows]
    assert names_of(path, np.empty(0, np.int64)) == []


@given(names=st.lists(st.none() | st.text(), min_size=1, max_size=30), draw=st.data())
def test_any_names(tmp_path_factory, names, draw):
    path = written(tmp_path_factory.mktemp("names") / "u.arrow", names)
    rows = draw.draw(st.lists(st.integers(0, len(names) - 1), max_size=30))
    assert names_of(path, np.array(rows, np.int64)) == [names[row] for row in rows]


def test_a_file_without_documents(tmp_path):
    path = written(tmp_path / "u.arrow", [])
    assert names_of(path, np.empty(0, np.int64)) == []


def test_a_flipped_bit_is_noticed_where_it_is_looked_at(tmp_path):
    path = written(tmp_path / "u.arrow")
    content = bytearray(path.read_bytes())
    content[content.index(b"xxxx") + 100] ^= 4
    path.write_bytes(content)
    assert names_of(path, np.array([0, 3])) == ["a", "naïve"]
    with pytest.raises(ValueError, match=r"u.arrow: the name of row 4 is damaged"):
        names_of(path, np.array([0, 4]))


@pytest.mark.parametrize("end", [0, 8, 100, -1, -8])
def test_a_file_that_was_cut_short_is_noticed(tmp_path, end):
    path = written(tmp_path / "u.arrow")
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ValueError, match=r"u.arrow: no whole file of names"):
        names_of(path, np.array([0]))


def test_no_file_is_said_as_that(tmp_path):
    with pytest.raises(FileNotFoundError):
        names_of(tmp_path / "u.arrow", np.array([0]))
