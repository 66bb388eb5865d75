"""The run's tokenizer: byte-level BPE trained on a sample of the training documents, or one given as a tokenizer.json."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from headrace.config import Config, ConfigError

END_OF_TEXT = "<|endoftext|>"


class Tokens(Config):
    """How text becomes sequences of tokens."""

    tokenizer: str = "bpe"  # "bpe" trains a byte-level BPE on the run's own text; anything else is the path of a tokenizer.json
    vocab_size: Annotated[int, Field(ge=320, le=1 << 20)] = 32_768  # entries, the 256 bytes and the end-of-text token included
    sequence_length: Annotated[int, Field(ge=8, le=1 << 20)] = 2_048  # tokens that one training sequence predicts
    sample_bytes: Annotated[int, Field(ge=1_000)] = 50_000_000  # text that the BPE is trained on, chosen by hash over all sources


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909; bytes as in Radford et al. 2019).

    All 256 bytes are in the vocabulary whatever the sample holds, so no text has an unknown token and decoding is exact.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json that has an end-of-text token.

    Raises:
        ConfigError: no such file, no tokenizer in it, or no end-of-text token among its entries.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises its own bare Exception
        raise ConfigError(f"tokens.tokenizer = {str(path)!r}: {error}; give 'bpe' or the path of a tokenizer.json.") from None
    if end_of_text(tokenizer) is None:
        names = ", ".join(END_OF_TEXT_NAMES)
        raise ConfigError(f"tokens.tokenizer = {str(path)!r}: none of {names} is in its vocabulary, so documents could not be told apart.")
    return tokenizer


END_OF_TEXT_NAMES = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>")


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """Id of the token that ends a document, by the names in use."""
    for name in END_OF_TEXT_NAMES:
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    return None
