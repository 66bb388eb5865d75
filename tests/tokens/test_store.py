from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.tokens.store import StreamFile, TokenStore, _file_at, write_store

DOCUMENTS = st.lists(st.lists(st.integers(1, 60_000), max_size=12), max_size=12)


@settings(max_examples=40, deadline=None)
@given(documents=DOCUMENTS, length=st.integers(1, 7))
def test_the_stream_is_the_documents_joined_by_end_of_text(tmp_path_factory, documents, length):
    folder = tmp_path_factory.mktemp("store")
    store = write_store(folder, {"a": {"train": documents}}, vocab_size=60_001, eos=0, sequence_length=length)
    joined = [token for document in documents for token in [*document, 0]]
    assert store.num_tokens("a", "train") == len(joined)
    assert store.tokens("a", "train", 0, len(joined)).tolist() == joined
    windows = [joined[start : start + length + 1] for start in range(0, len(joined) - length, length)]
    assert store.num_sequences("a", "train") == len(windows)
    assert [store.sequence("a", "train", index).tolist() for index in range(len(windows))] == windows
    index = store.documents("a", "train").to_pylist()
    assert [joined[row["start"] : row["start"] + row["tokens"]] for row in index] == [[*document, 0] for document in documents]


def test_reading_past_the_end_is_an_error(tmp_path):
    store = write_store(tmp_path, {"a": {"train": [[1, 2]]}}, vocab_size=10, eos=0, sequence_length=2)
    with pytest.raises(IndexError, match=r"\[0, 9\) of a/train, which has 3"):
        store.tokens("a", "train", 0, 9)


def test_large_ids_survive(tmp_path):
    store = write_store(tmp_path, {"a": {"train": [[70_000, 99_999]]}}, vocab_size=100_000, eos=5, sequence_length=2)
    assert store.tokens("a", "train", 0, 3).tolist() == [70_000, 99_999, 5]


def test_a_range_over_several_files_is_joined(tmp_path):
    files = [StreamFile(tmp_path, tmp_path, start, 10) for start in (0, 10, 20)]
    assert [_file_at(files, position) for position in (0, 9, 10, 25)] == [0, 0, 1, 2]


def test_a_store_reopens_with_what_was_written(tmp_path):
    written = write_store(tmp_path, {"b": {"train": [[1]]}, "a": {"validation": [[2, 3]]}}, vocab_size=8, eos=0, sequence_length=1)
    store = TokenStore.open(tmp_path)
    assert store.sources == written.sources == ["a", "b"]
    assert store.num_tokens("a", "train") == 0
    assert store.num_documents("a", "validation") == 1
    assert store.documents("a", "train").num_rows == 0
