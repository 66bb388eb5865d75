import numpy as np
import pytest

from headrace.evaluate.excerpts import choose, token_characters
from headrace.tokens.store import StreamWriter, write_store
from headrace.tokens.tokenizer import train_bpe


@pytest.fixture
def tokenizer(byte_tokenizer):
    return byte_tokenizer(16)


def store_of(folder, validation, sources=("a", "b")):
    return write_store(folder, {source: {"validation": validation} for source in sources}, vocab_size=16, eos=15, sequence_length=4)


def test_everything_is_chosen_when_the_budget_allows(tmp_path, tokenizer):
    store = store_of(tmp_path, [[1, 2, 3], [4], [5, 6]])
    excerpts = choose(store, tokenizer, 1000)
    assert excerpts.source == ["a"] * 3 + ["b"] * 3
    assert excerpts.tokens.tolist() == [4, 2, 3] * 2  # with the end of text
    assert excerpts.num_bytes.tolist() == [2, 0, 1] * 2  # neither the first token nor the end of text
    assert excerpts.ids(store, 2).tolist() == [5, 6, 15]
    assert excerpts.doc.tolist() == [0, 1, 2, 1 << 32, 1 << 32 | 1, 1 << 32 | 2]


def test_no_source_and_no_document_takes_more_than_its_budget(tmp_path, tokenizer):
    store = store_of(tmp_path, [[1] * 500] + [[2] * 30] * 20)
    excerpts = choose(store, tokenizer, 160)
    for source in ("a", "b"):
        tokens = excerpts.tokens[[name == source for name in excerpts.source]]
        assert tokens.sum() == 160
        assert tokens.max() == 160 // 8
        assert len(tokens) >= 8


def test_the_choice_depends_on_document_numbers_only(tmp_path, tokenizer):
    few = choose(store_of(tmp_path / "few", [[1] * 9] * 30, sources=("a",)), tokenizer, 100)
    many = choose(store_of(tmp_path / "many", [[1] * 9] * 30, sources=("a", "b", "c")), tokenizer, 100)
    assert few.doc.tolist() == many.doc[: len(few)].tolist()
    assert sorted(few.doc.tolist()) == few.doc.tolist() != list(range(len(few)))


def test_empty_documents_are_passed_over(tmp_path, tokenizer):
    assert choose(store_of(tmp_path, [[], [1], []], sources=("a",)), tokenizer, 100).doc.tolist() == [1]


def test_bytes_of_a_byte_level_tokenizer_are_exact(tmp_path):
    texts = ["Der Bär hört 聪明的 🐻 zu.", "naïve café — plain words, plain words"]
    tokenizer = train_bpe(texts * 5, 320)
    eos = tokenizer.token_to_id("<|endoftext|>")
    characters = token_characters(tokenizer, tokenizer.get_vocab_size())
    assert characters[eos] == 0
    for text in texts:
        assert characters[tokenizer.encode(text).ids].sum() == len(text.encode())


def test_bytes_of_another_tokenizer_are_the_document_s_in_proportion(tmp_path, tokenizer, monkeypatch):
    written = StreamWriter.add
    monkeypatch.setattr(StreamWriter, "add", lambda self, doc, ids, num_bytes: written(self, doc, ids, 3 * num_bytes))
    excerpts = choose(store_of(tmp_path, [[1] * 100], sources=("a",)), tokenizer, 160)
    assert excerpts.tokens.tolist() == [20]
    assert excerpts.num_bytes.tolist() == [57]  # 19 of 100 characters, of 300 bytes


def test_a_store_without_validation_gives_nothing(tmp_path, tokenizer):
    excerpts = choose(store_of(tmp_path, []), tokenizer, 100)
    assert len(excerpts) == 0
    assert excerpts.tokens.dtype == np.int64
