"""Texts to token ids: the tokenizer of a file, the ids of texts in bounded memory, and what each id spells.

A tokenizer *spells* a text if its tokens, put end to end as UTF-8, are the text byte for byte. Byte-level BPE (Radford et al. 2019) does
so with every text; then the place of a token in the text follows from the ids alone. Others lower, normalise or leave out spaces.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit
from tokenizers import Tokenizer

BATCH_CHARS = 1 << 20  # encoded at a time: the library holds some 150 bytes for each while it does
PIECE_CHARS = 1 << 18  # a longer text is encoded in pieces, where its tokenizer allows
LONGEST_CHARS = 1 << 20  # of a piece: so much text without a space or a line feed is cut up as if one were there

Uint8s = npt.NDArray[np.uint8]
Uint32s = npt.NDArray[np.uint32]
Int64s = npt.NDArray[np.int64]

# No match of GPT-2's pattern holds white space behind anything else, so one ends at each of these places, whatever lies around it.
_BORDER = re.compile(r"\S(?=[ \n])")


@lru_cache(maxsize=2)
def cached_tokenizer(path: str) -> Tokenizer:
    """The tokenizer in a file, once a process. One thread: the stage's units already fill the cores."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(path)
    # A document that spells out the end-of-text token is text like any other; it must not end itself.
    tokenizer.encode_special_tokens = True
    # A file may ask for sequences of one length, which would cut documents short or fill them up.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Uint32s]:
    """The ids of each text, without special tokens: uint32 [tokens] of each.

    With the byte-level pre-tokenizer of GPT-2 a long text takes no more memory than a short one; with others, some 150 bytes a code point.
    """
    in_pieces = _splits_at_borders(tokenizer)
    pieces = ((place, piece) for place, text in enumerate(texts) for piece in (_pieces(text) if in_pieces else (text,)))
    found: list[list[Uint32s]] = [[] for _ in texts]
    for batch in batched(pieces, BATCH_CHARS):
        for (place, _), encoding in zip(batch, tokenizer.encode_batch_fast([text for _, text in batch], add_special_tokens=False)):
            found[place].append(np.array(encoding.ids, np.uint32))
    return [ids[0] if len(ids) == 1 else np.concatenate(ids) for ids in found]


def batched(rows: Iterable[tuple[int, str]], max_chars: int) -> Iterator[list[tuple[int, str]]]:
    """Runs of rows of about `max_chars` characters: bounded memory whatever the documents' length."""
    batch: list[tuple[int, str]] = []
    chars = 0
    for row in rows:
        batch.append(row)
        chars += len(row[1])
        if chars >= max_chars:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _splits_at_borders(tokenizer: Tokenizer) -> bool:
    """Whether pieces cut at borders have the ids of the whole: where GPT-2's pattern alone decides what is looked at together."""
    if tokenizer.pre_tokenizer is None or tokenizer.normalizer is not None:
        return False
    form = json.loads(tokenizer.pre_tokenizer.__getstate__())
    own_pattern = form["type"] == "ByteLevel" and form["use_regex"] and not form["add_prefix_space"]
    return own_pattern and all(token.special for token in tokenizer.get_added_tokens_decoder().values())


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > PIECE_CHARS:
        border = _BORDER.search(text, start + PIECE_CHARS - 1, start + LONGEST_CHARS)
        stop = border.end() if border else start + LONGEST_CHARS
        yield text[start:stop]
        start = stop
    if start < len(text) or not text:
        yield text[start:]


@dataclass(frozen=True)
class Spelling:
    """What each of V ids spells; nothing for an id of which that is not known."""

    offsets: Int64s  # [V + 1]: id i spells data[offsets[i]:offsets[i + 1]]
    data: Uint8s  # UTF-8, a code point's bytes maybe over several tokens
    begun: npt.NDArray[np.int32]  # [V], code points whose first byte is in the token
    inside: npt.NDArray[np.bool_]  # [V]: the token begins inside a code point

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Spelling:
        """Read from the vocabulary, in which byte-level tokenizers write each byte as a character of its own."""
        byte_of = _byte_characters()
        added = tokenizer.get_added_tokens_decoder()
        spelled = [b""] * (1 + max([*tokenizer.get_vocab(with_added_tokens=True).values(), *added], default=-1))
        for token, number in tokenizer.get_vocab(with_added_tokens=False).items():
            if all(character in byte_of for character in token):
                spelled[number] = bytes(byte_of[character] for character in token)
        for number, entry in added.items():
            spelled[number] = entry.content.encode()
        offsets = np.zeros(len(spelled) + 1, np.int64)
        np.cumsum([len(each) for each in spelled], out=offsets[1:])
        data = np.frombuffer(b"".join(spelled), np.uint8)
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(data & 0xC0 != 0x80)])
        inside = np.array([bool(each) and each[0] & 0xC0 == 0x80 for each in spelled], bool)
        return cls(offsets, data, (begins[offsets[1:]] - begins[offsets[:-1]]).astype(np.int32), inside)

    def spell(self, ids: Uint32s, token_offsets: Int64s, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether ids[token_offsets[i]:token_offsets[i + 1]] spell text i: bool [N]."""
        _, offsets, data = pa.array(texts, pa.large_string()).buffers()
        starts = np.frombuffer(offsets, np.int64, len(texts) + 1)
        characters = np.frombuffer(data, np.uint8) if data is not None and starts[-1] else np.empty(0, np.uint8)
        found = np.empty(len(texts), np.bool_)
        _spell(ids, token_offsets, self.offsets, self.data, characters, starts, found)
        return found


@lru_cache(maxsize=2)
def cached_spelling(path: str) -> Spelling:
    """The spelling of the tokenizer in a file, once a process."""
    return Spelling.of(cached_tokenizer(path))


def _byte_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's `bytes_to_unicode`, the other way round)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + place): byte for place, byte in enumerate(others)}}


@njit(nogil=True, cache=True)
def _spell(ids: Any, token_offsets: Any, offsets: Any, data: Any, characters: Any, starts: Any, found: Any) -> None:
    for text in range(len(found)):
        position = starts[text]
        end = starts[text + 1]
        same = True
        for token in range(token_offsets[text], token_offsets[text + 1]):
            first = offsets[ids[token]]
            length = offsets[ids[token] + 1] - first
            if position + length > end:
                same = False
                break
            for byte in range(length):
                same &= data[first + byte] == characters[position + byte]
            position += length
        found[text] = same and position == end
