from __future__ import annotations

import pytest

from headrace.config import ConfigError
from headrace.tokens.tokenizer import read_tokenizer, train_bpe

TEXTS = ["the cat sat on the mat. " * 20, "żółw pływa, a kot śpi. " * 10, "def f(x):\n\treturn x + 1\n" * 10]


def test_every_byte_has_a_token_so_decoding_is_exact():
    tokenizer = train_bpe(TEXTS, 400)
    text = "never seen: \x00\x01 \u0416 \U0001f600 \t\r\n  end"
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert tokenizer.get_vocab_size() <= 400


def test_training_is_repeatable_to_the_byte():
    assert train_bpe(TEXTS, 400).to_str() == train_bpe(list(TEXTS), 400).to_str()


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"tokens\.tokenizer = .*tokenizer\.json"):
        read_tokenizer(path)
