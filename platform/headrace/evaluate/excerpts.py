"""Which validation tokens are scored: one choice for every checkpoint and every baseline, so that their numbers compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from tokenizers import Tokenizer

from headrace.tokens.store import TokenStore

# A document gives at most this share of its source's budget: eight documents at least speak for a source, however long its books are.
DOCUMENT_SHARE = 8

DEFINITION = (
    "Scored are the tokens of an excerpt but its first; an excerpt is the beginning of a validation document, up to its end-of-text token "
    "where the budget allows. Training never predicts a document's first token, so nothing is charged for it, to the model or to a "
    "baseline. Bits per byte = nats / (ln 2 x UTF-8 bytes of the scored tokens; the end-of-text token has none). Where the tokenizer is "
    "not byte-level, a part of a document has the document's bytes in proportion to the characters of its tokens."
)


@dataclass(frozen=True)
class Excerpts:
    """Beginnings of N validation documents, ordered by source, then by document.

    source: the name of each one's source. doc, start, tokens, num_bytes: int64 [N]; `start` within the source's validation stream,
    `tokens` counts the first token, which is context only; `num_bytes` are the UTF-8 bytes of the tokens that are scored.
    """

    source: list[str]
    doc: np.ndarray[Any, Any]
    start: np.ndarray[Any, Any]
    tokens: np.ndarray[Any, Any]
    num_bytes: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.source)

    def ids(self, store: TokenStore, row: int) -> np.ndarray[Any, Any]:
        """Token ids of one excerpt: int64 [tokens[row]]."""
        start = int(self.start[row])
        return store.tokens(self.source[row], "validation", start, start + int(self.tokens[row]))


def choose(store: TokenStore, tokenizer: Tokenizer, max_tokens: int) -> Excerpts:
    """At most `max_tokens` tokens of each source's validation part, by a rule that depends on the documents' numbers only.

    Documents come in the order of a hash of their number; each gives its beginning, at most 1/8 of the budget, until the budget is
    used up. Documents of a single token hold nothing to predict and are passed over.
    """
    characters = token_characters(tokenizer, store.vocab_size)
    source_of: list[str] = []
    columns: dict[str, list[int]] = {"doc": [], "start": [], "tokens": [], "num_bytes": []}
    for source in store.sources:
        documents = store.documents(source, "validation").to_pydict()
        for row, tokens in _beginnings(documents["doc"], documents["tokens"], max_tokens):
            start = documents["start"][row]
            written = characters[store.tokens(source, "validation", start, start + documents["tokens"][row])]
            whole = max(1, int(written.sum()))
            source_of.append(source)
            columns["doc"].append(documents["doc"][row])
            columns["start"].append(start)
            columns["tokens"].append(tokens)
            # Exact for a byte-level tokenizer, where `whole` is the document's bytes.
            columns["num_bytes"].append((documents["bytes"][row] * int(written[1:tokens].sum()) + whole // 2) // whole)
    return Excerpts(source_of, **{name: np.array(values, dtype=np.int64) for name, values in columns.items()})


def _beginnings(doc: list[int], tokens: list[int], max_tokens: int) -> list[tuple[int, int]]:
    """(row, tokens taken) of the chosen documents, in the order of their numbers."""
    order = sorted(range(len(doc)), key=lambda row: xxhash.xxh3_64_intdigest(doc[row].to_bytes(8, "little")))
    most = max(2, max_tokens // DOCUMENT_SHARE)
    chosen: list[tuple[int, int]] = []
    left = max_tokens
    for row in order:
        if left < 2:
            break
        if tokens[row] >= 2:
            chosen.append((row, min(tokens[row], most, left)))
            left -= chosen[-1][1]
    return sorted(chosen, key=lambda pair: doc[pair[0]])


def token_characters(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray[Any, Any]:
    """Characters of text behind each token: int64 [vocab_size]; none for special tokens; bytes where the tokenizer is byte-level."""
    special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    lengths = np.zeros(vocab_size, dtype=np.int64)
    for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        if token_id not in special and token_id < vocab_size:
            lengths[token_id] = len(token)  # a byte-level alphabet writes one character for each byte
    return lengths
