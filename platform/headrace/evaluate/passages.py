"""The text behind excerpts of a token store, for models that read it with another tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers

from headrace.config import ConfigError
from headrace.evaluate.excerpts import Excerpts
from headrace.tokens.store import TokenStore

CONTINUATION_BYTES = 3  # at most, behind the first byte of a UTF-8 character


@dataclass(frozen=True)
class Passage:
    """What an excerpt says: `before` is context, `text` is scored; `ended` if the document's end is part of the excerpt."""

    before: str
    text: str
    ended: bool


def passages(store: TokenStore, tokenizer: Tokenizer, excerpts: Excerpts) -> list[Passage]:
    """The text of each excerpt, cut where its first token ends; a character that a cut goes through is left to the part before it.

    Raises:
        ConfigError: the store's tokenizer is not byte-level, so that its tokens do not give the text back exactly.
    """
    written = token_bytes(tokenizer, store.vocab_size)
    return [_passage(store, written, excerpts, row) for row in range(len(excerpts))]


def _passage(store: TokenStore, written: list[bytes], excerpts: Excerpts, row: int) -> Passage:
    ids = excerpts.ids(store, row)
    ended = bool(ids[-1] == store.eos)
    scored = b"".join(written[token] for token in ids)
    stop = int(excerpts.start[row]) + len(ids)
    beyond: np.ndarray[Any, Any] = np.empty(0, np.int64)
    if not ended:  # the bytes that complete the last character; each token has one at least
        end = min(stop + CONTINUATION_BYTES, store.num_tokens(excerpts.source[row], "validation"))
        beyond = store.tokens(excerpts.source[row], "validation", stop, end)
    content = scored + b"".join(written[token] for token in beyond)
    first, last = _character_end(content, len(written[ids[0]])), _character_end(content, len(scored))
    return Passage(content[:first].decode("utf-8", "replace"), content[first:last].decode("utf-8", "replace"), ended)


def _character_end(content: bytes, at: int) -> int:
    """The first border between characters at `at` or behind it."""
    while at < len(content) and content[at] & 0xC0 == 0x80:
        at += 1
    return at


def token_bytes(tokenizer: Tokenizer, vocab_size: int) -> list[bytes]:
    """The UTF-8 bytes behind each token of a byte-level tokenizer; none for special tokens.

    Raises:
        ConfigError: it is not byte-level.
    """
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    kinds = {part.get("type") for part in (decoder, *decoder.get("decoders", []))}
    if "ByteLevel" not in kinds:
        raise ConfigError(
            "The run's tokenizer is not byte-level, so its tokens do not give the held-out text back exactly, and a model with another "
            "tokenizer cannot be scored on it; a run with tokens.tokenizer=bpe can be used."
        )
    byte_of = _byte_alphabet()
    added = tokenizer.get_added_tokens_decoder()
    found = [b""] * vocab_size
    for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        if token_id >= vocab_size:
            continue
        if token_id in added:
            found[token_id] = b"" if added[token_id].special else token.encode()
        else:
            found[token_id] = bytes(byte_of[character] for character in token)
    return found


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    Printable characters of Latin-1 stand for themselves; the other bytes, in order, for the characters from 256 on (Radford et al. 2019,
    GPT-2's published encoder).
    """
    printable = {ord(character) for character in pre_tokenizers.ByteLevel.alphabet() if ord(character) < 256}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}
