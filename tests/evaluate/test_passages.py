import numpy as np
import pytest
from tokenizers import Tokenizer, models

from headrace.config import ConfigError
from headrace.evaluate.excerpts import choose
from headrace.evaluate.passages import Passage, passages, token_bytes
from headrace.tokens.store import write_store
from headrace.tokens.tokenizer import END_OF_TEXT, train_bpe

EOS = 256  # behind the 256 bytes


@pytest.fixture
def read(tmp_path, byte_tokenizer):
    """The passages of validation documents, each byte a token, at most `most` tokens of a document."""

    def build(*texts, most=1000):
        tokenizer = byte_tokenizer(EOS + 1)
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        store = write_store(tmp_path, {"a": {"validation": ids}}, vocab_size=EOS + 1, eos=EOS, sequence_length=8)
        excerpts = choose(store, tokenizer, 8 * most)
        found = passages(store, tokenizer, excerpts)
        assert len(found) == len(texts)
        return found, excerpts

    return build


def test_the_bytes_of_tokens_join_to_the_text():
    tokenizer = train_bpe(["naïve text, naïve text, 日本語 日本語\n\n\tx"] * 3, 330)
    written = token_bytes(tokenizer, tokenizer.get_vocab_size())
    text = "naïve 日本語 text\r\n\x00\t😀 " + "".join(map(chr, range(300)))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert b"".join(written[token] for token in ids) == text.encode()
    assert len(ids) < len(text.encode())
    assert written[tokenizer.token_to_id(END_OF_TEXT)] == b""


def test_the_first_token_is_context_and_the_rest_is_scored(read):
    found, excerpts = read("hello there", "x")
    assert found == [Passage("h", "ello there", ended=True), Passage("x", "", ended=True)]
    assert excerpts.num_bytes.tolist() == [10, 0]


def test_an_excerpt_without_the_document_s_end_says_so(read):
    found, excerpts = read("hello there", most=6)
    assert found == [Passage("h", "ello ", ended=False)]
    assert excerpts.num_bytes.tolist() == [5]


@pytest.mark.parametrize("most, text", [(2, ""), (4, "a"), (8, "ab本"), (9, "ab本語"), (10, "ab本語"), (11, "ab本語"), (12, "ab本語z")])
def test_a_character_that_is_cut_counts_with_the_text_before_the_cut(read, most, text):
    # The first token is the first byte of 日; 9 and 10 tokens end inside of 語.
    found, excerpts = read("日ab本語zz", most=most)
    assert found == [Passage("日", text, ended=False)]
    assert excerpts.num_bytes.tolist() == [most - 1]


def test_a_tokenizer_that_is_not_byte_level_is_refused():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(ConfigError, match="not byte-level"):
        token_bytes(tokenizer, 2)


def test_excerpts_of_every_document_are_read_back(read):
    generator = np.random.default_rng(3)
    texts = ["".join(chr(c) for c in generator.integers(33, 0x4FF, size=generator.integers(2, 30))) for _ in range(20)]
    found, _ = read(*texts)
    assert [each.before + each.text for each in found] == texts
