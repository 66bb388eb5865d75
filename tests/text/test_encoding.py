from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from headrace.text import encoding
from headrace.text.encoding import Spelling, batched, cached_spelling, cached_tokenizer, encode_texts
from headrace.tokens.tokenizer import END_OF_TEXT, end_of_text, train_bpe

TEXTS = ["the cat sat on the mat, it's theirs. " * 20, "żółw pływa, a kot śpi. " * 10, "def f(x):\n\treturn x + 1\n" * 10]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS, 400)


def joined(ids):
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in ids])]).astype(np.int64)
    return np.concatenate([np.empty(0, np.uint32), *ids]), offsets


def saved(tokenizer, path):
    tokenizer.save(str(path))
    return str(path)


def test_a_text_that_spells_out_the_end_of_text_token_does_not_end_itself(tokenizer, tmp_path):
    cached = cached_tokenizer(saved(tokenizer, tmp_path / "tokenizer.json"))
    text = f"before {END_OF_TEXT} after"
    ids = encode_texts(cached, [text])[0]
    assert end_of_text(cached) not in ids
    assert cached.decode(ids.tolist()) == text


def test_a_file_that_asks_for_sequences_of_one_length_does_not_get_them(tokenizer, tmp_path):
    same = Tokenizer.from_str(tokenizer.to_str())
    same.enable_truncation(3)
    same.enable_padding(length=8)
    cached = cached_tokenizer(saved(same, tmp_path / "tokenizer.json"))
    assert [len(ids) for ids in encode_texts(cached, ["", "a cat"])] == [0, len(tokenizer.encode("a cat").ids)]


def test_batches_are_bounded_and_lose_nothing():
    rows = [(number, "x" * (number % 7)) for number in range(50)]
    batches = list(batched(rows, 10))
    assert [row for batch in batches for row in batch] == rows
    assert all(sum(len(text) for _, text in batch[:-1]) < 10 for batch in batches)


@settings(deadline=None)
@given(texts=st.lists(st.text(st.sampled_from("ab' \n\t\u00a0\u2028.1ż😀s"), max_size=80), max_size=4), size=st.integers(1, 9))
def test_a_text_in_pieces_has_the_ids_of_the_whole(tokenizer, texts, size):
    expected = [tokenizer.encode(text).ids for text in texts]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encoding, "PIECE_CHARS", size)
        patched.setattr(encoding, "BATCH_CHARS", 20)
        assert [ids.tolist() for ids in encode_texts(tokenizer, texts)] == expected


def test_pieces_are_small_where_white_space_allows():
    text = "word " * 200_000
    assert max(map(len, encoding._pieces(text))) <= encoding.PIECE_CHARS + 4
    assert "".join(encoding._pieces(text)) == text


def looks_around(tokenizer):
    same = Tokenizer.from_str(tokenizer.to_str())
    same.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return same


def knows_a_phrase(tokenizer):
    same = Tokenizer.from_str(tokenizer.to_str())
    same.add_tokens([AddedToken("cat sat", special=False)])
    return same


def lower_cases(tokenizer):
    same = Tokenizer.from_str(tokenizer.to_str())
    same.normalizer = normalizers.Lowercase()
    return same


def has_no_pattern(tokenizer):
    return Tokenizer(models.BPE({"a": 0, " ": 1, "a a": 2, "a ": 3}, [("a", " "), ("a ", "a")]))


@pytest.mark.parametrize("other", [looks_around, knows_a_phrase, lower_cases, has_no_pattern])
def test_texts_of_other_tokenizers_are_encoded_whole(tokenizer, other, monkeypatch):
    monkeypatch.setattr(encoding, "PIECE_CHARS", 1)
    changed = other(tokenizer)
    for text in ["a cat sat A a a aa a", " a a"]:
        assert encode_texts(changed, [text])[0].tolist() == changed.encode(text).ids


@settings(deadline=None)
@given(texts=st.lists(ANY_TEXT, max_size=4))
def test_byte_level_tokens_spell_any_text(tokenizer, texts):
    spelling = Spelling.of(tokenizer)
    ids, offsets = joined(encode_texts(tokenizer, texts))
    assert spelling.spell(ids, offsets, texts).all()
    assert spelling.begun[ids].sum() == sum(map(len, texts))
    data = [spelling.data[spelling.offsets[number] : spelling.offsets[number + 1]].tobytes() for number in ids]
    assert b"".join(data) == "".join(texts).encode()
    assert [each[0] & 0xC0 == 0x80 for each in data] == spelling.inside[ids].tolist()


def test_ids_of_another_text_do_not_spell_it(tokenizer):
    texts = ["a cat", "żółw", "", "x"]
    ids, offsets = joined(encode_texts(tokenizer, texts))
    others = ["a cat ", "żólw", "y", "x"]
    assert Spelling.of(tokenizer).spell(ids, offsets, others).tolist() == [False, False, False, True]
    assert Spelling.of(tokenizer).spell(ids, offsets, ["a ca", "żół", "", ""]).tolist() == [False, False, True, False]


def test_added_tokens_spell_their_content_and_unknown_ones_nothing(tokenizer, tmp_path):
    changed = knows_a_phrase(tokenizer)
    spelling = cached_spelling(saved(changed, tmp_path / "tokenizer.json"))
    text = "a cat sat"
    ids, offsets = joined(encode_texts(changed, [text]))
    assert changed.token_to_id("cat sat") in ids
    assert spelling.spell(ids, offsets, [text]).all()
    words = Tokenizer(models.WordLevel({"\u2581a": 3, "b": 1}, unk_token="b"))
    assert np.diff(Spelling.of(words).offsets).tolist() == [0, 1, 0, 0]


def test_lower_cased_text_is_not_spelled(tokenizer):
    changed = lower_cases(tokenizer)
    ids, offsets = joined(encode_texts(changed, ["a cat", "A cat"]))
    assert Spelling.of(changed).spell(ids, offsets, ["a cat", "A cat"]).tolist() == [True, False]
    assert json.loads(changed.to_str())["normalizer"] == {"type": "Lowercase"}
