from __future__ import annotations

import numpy as np

from headrace import artifact
from headrace.decontaminate import index as indexing
from headrace.decontaminate.index import build_index, load_index, load_postings
from headrace.decontaminate.items import make_item


def phrases(index):
    return sorted(index.phrase(gram) for gram in range(len(index.hashes)))


def test_every_n_gram_once_with_the_items_that_hold_it(index_of):
    index, folder = index_of(["a b c d", "B, C! d", "x a b c"], 3)
    assert phrases(index) == ["a b c", "b c d", "x a b"]
    assert (np.diff(index.hashes.astype(object)) > 0).all()
    postings = load_postings(folder)
    held = {index.phrase(gram): postings.item[postings.offsets[gram] : postings.offsets[gram + 1]].tolist() for gram in range(3)}
    assert held == {"a b c": [0, 2], "b c d": [0, 1], "x a b": [2]}
    assert postings.n_grams.tolist() == [2, 1, 2]
    items = artifact.read_table(folder / "items.parquet")
    assert items["item"].to_pylist() == ["i0", "i1", "i2"]
    assert items["words"].to_pylist() == [4, 3, 4]


def test_n_grams_over_alternatives_are_held_but_not_owned(index_of):
    index, folder = index_of([[["a b"], ["c d", "e f"]]], 3)
    postings = load_postings(folder)
    own = {index.phrase(gram): bool(postings.own[gram]) for gram in range(len(index.hashes))}
    assert own == {"a b c": True, "b c d": True, "c d e": True, "d e f": True, "a b e": False, "b e f": False}
    assert postings.n_grams.tolist() == [4]


def test_n_grams_without_a_letter_are_left_out(index_of):
    index, folder = index_of(["1 2 3 4 five 6 7 8"], 3)
    assert phrases(index) == ["3 4 five", "4 five 6", "five 6 7"]
    assert load_postings(folder).n_grams.tolist() == [3]


def test_items_shorter_than_n_are_one_feature(index_of):
    texts = ["to be or not", "two words", "1 2 three four", "", "one 2 three four", "nine words are in this short one not ten"]
    index, folder = index_of(texts, 13)
    assert phrases(index) == ["nine words are in this short one not ten", "one 2 three four", "to be or not"]
    assert load_postings(folder).n_grams.tolist() == [1, 0, 0, 0, 1, 1]


def test_no_items_at_all(tmp_path):
    assert build_index([], 13, tmp_path) == {"items": 0, "n_grams": 0, "items_without_n_grams": 0}
    assert len(load_index(tmp_path, 13).hashes) == 0
    assert build_index([make_item("set", "a", 0, [["too short"]], 13)], 13, tmp_path / "short")["n_grams"] == 0


def test_equal_hashes_of_different_words_stay_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_keys", lambda words, first, lengths: np.zeros(len(first), np.uint64))
    items = [make_item("set", str(row), row, [[text]], 2) for row, text in enumerate(["a bc", "ab c", "a bc d", "A-B, C", "abc abc"])]
    build_index(items, 2, tmp_path)
    index = load_index(tmp_path, 2)
    assert phrases(index) == ["a bc", "ab c", "abc abc", "bc d"]
    postings = load_postings(tmp_path)
    held = {index.phrase(gram): postings.item[postings.offsets[gram] : postings.offsets[gram + 1]].tolist() for gram in range(4)}
    assert held == {"a bc": [0, 2], "ab c": [1, 3], "abc abc": [4], "bc d": [2]}


def test_the_same_items_give_the_same_bytes(tmp_path):
    items = [make_item("set", str(row), row, [[f"word{row} is one of {row * 7} words"], ["yes", "no it is not"]], 4) for row in range(50)]
    for name in ("one", "other"):
        build_index(items, 4, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
