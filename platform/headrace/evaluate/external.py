"""Score a model from outside on the text that a run's checkpoints are scored on: another tokenizer, the same bytes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer

from headrace import storage
from headrace.config import ConfigError
from headrace.evaluate.config import FAST, EvaluateConfig
from headrace.evaluate.excerpts import DEFINITION, choose
from headrace.evaluate.hugging_face import HuggingFaceModel, load_hugging_face
from headrace.evaluate.metrics import DocumentScores, rows
from headrace.evaluate.passages import Passage, passages
from headrace.evaluate.result import publish
from headrace.evaluate.scoring import GPU_LOGITS_AT_ONCE, LOGITS_AT_ONCE, score_windows
from headrace.tokens.store import TokenStore

# Tokens of a window, unless the model's context is shorter or the run's sequences are longer: a window's logits over 128k entries then
# take 1 GB.
WINDOW = 2048
NOT_SCORED = -100

EXTERNAL_DEFINITION = (
    f"{DEFINITION} A model from outside is scored on the same text and divided by the same number of bytes, in tokens of its own: the "
    "text of the run's first token is its context too, and where none of its tokens ends there, what comes before that place and behind "
    "it is encoded apart. A character that is cut at either end of the scored text counts with the text before the cut. Its own "
    "end-of-text token is charged where the excerpt has one, if its tokenizer names one. It reads windows that do not overlap, as a "
    "checkpoint does, each opened by what its tokenizer puts in front of a text. Perplexity and accuracy are those of its own tokens and "
    "compare with no other tokenizer's."
)

Tracked = Callable[[Sequence[Any]], Iterable[Any]]  # gives out what it is given, and tells how far that is


@dataclass(frozen=True)
class Encoded:
    """A passage in a model's own tokens, int64 [n]; those from place `scored` on are charged."""

    ids: np.ndarray[Any, Any]
    scored: int


def external_path(run: Path, name: str) -> Path:
    """Where a run keeps the score of a model from outside.

    Raises:
        ConfigError: the name is no plain file name.
    """
    if not re.fullmatch(r"[\w+-][\w.+-]*", name):
        raise ConfigError(f"--name = {name!r}: becomes a file's name, so letters, digits, '_', '-', '+' and '.' only.")
    return run / "eval" / "external" / f"{name}.json"


def score_external(folder: Path, tokens: Path, config: EvaluateConfig, out: Path, tracked: Tracked = iter) -> dict[str, Any]:
    """Score a model in the Hugging Face format on the validation part of a token store and publish the result.

    Args:
        folder: config.json, tokenizer.json and safetensors.
        tokens: a committed token store; its tokenizer chooses the excerpts, which are those of the `fast` suite.
        out: the JSON file to publish; see `external_path`.
        tracked: is handed the batches, to tell of the progress.

    Returns:
        what the file holds. "metrics": rows as in a suite's result; "files": those that make the model, with their SHA-256; "window":
        tokens that it reads at once; "lead": the tokens that open each window.

    Raises:
        ConfigError: the folder holds no model that can be scored; the store's tokenizer does not decode exactly; or `out` holds the
            score of another folder's model.
        ValueError: there is no validation text.
    """
    started = time.monotonic()
    _refuse_another(out, folder)
    store = TokenStore.open(tokens)
    tokenizer = Tokenizer.from_file(str(storage.local(tokens / "tokenizer.json")))
    excerpts = choose(store, tokenizer, config.max_tokens)
    if not len(excerpts):
        raise ValueError(f"{tokens}: no validation document of two tokens or more; raise split.validation.")
    texts = passages(store, tokenizer, excerpts)
    loaded = load_hugging_face(folder)
    loaded.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    window = max(WINDOW, store.sequence_length)
    if loaded.context is not None:
        window = min(window, loaded.context)
    encoded = encode(loaded, texts)
    nats, correct = score_encoded(loaded, encoded, window, tracked)
    counts = np.array([len(each.ids) - each.scored for each in encoded], dtype=np.int64)
    scores = DocumentScores(excerpts.source, excerpts.doc, counts, excerpts.num_bytes, nats, correct)
    found = {
        "suite": FAST,
        "name": out.stem,
        "folder": str(folder.absolute()),
        "files": [storage.file_entry(folder, path) for path in loaded.files],
        "architecture": loaded.architecture,
        "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "tokens_fingerprint": store.fingerprint,
        "metrics": rows(scores),
        "scored_tokens": int(counts.sum()),
        "bytes": int(scores.num_bytes.sum()),
        "n_documents": len(excerpts),
        "max_tokens": config.max_tokens,
        "window": window,
        "lead": [loaded.tokenizer.id_to_token(token) for token in loaded.lead],
        "end_of_text": None if loaded.eos is None else loaded.tokenizer.id_to_token(loaded.eos),
    }
    return publish(out, found, EXTERNAL_DEFINITION, started)


def _refuse_another(out: Path, folder: Path) -> None:
    """Two folders called `final` must not overwrite each other's score."""
    if not storage.present(out):
        return
    scored = storage.read_json(out)["folder"]
    if scored != str(folder.absolute()):
        raise ConfigError(f"{out} holds the score of {scored}; call this one otherwise with --name NAME, or delete that file.")


def encode(loaded: HuggingFaceModel, texts: Sequence[Passage]) -> list[Encoded]:
    """Each passage in the model's tokens, with a token border where its scored text begins."""
    whole = loaded.tokenizer.encode_batch([each.before + each.text for each in texts], add_special_tokens=False)
    return [_encoded(loaded, text, encoding) for text, encoding in zip(texts, whole, strict=True)]


def _encoded(loaded: HuggingFaceModel, text: Passage, whole: Encoding) -> Encoded:
    border = len(text.before)  # offsets count characters, too
    ids = whole.ids
    scored = next((place for place, (_, end) in enumerate(whole.offsets) if end > border), len(ids))
    if scored < len(ids) and whole.offsets[scored][0] < border:
        before, behind = loaded.tokenizer.encode_batch([text.before, text.text], add_special_tokens=False)
        ids, scored = before.ids + behind.ids, len(before.ids)
    if text.ended and loaded.eos is not None:
        ids = [*ids, loaded.eos]
    if not loaded.lead:
        scored = max(scored, 1)  # a tokenizer may drop a text that is white space only: then its first token has no context at all
    return Encoded(np.array(ids, dtype=np.int64), min(scored, len(ids)))


def score_encoded(
    loaded: HuggingFaceModel, encoded: Sequence[Encoded], window: int, tracked: Tracked = iter
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Sums over the scored tokens of each passage, each token scored once: nats float64 [N], hits int64 [N].

    Args:
        window: tokens that the model reads at once, what opens the window included.
    """
    pieces = sorted(
        ((row, *piece) for row, each in enumerate(encoded) for piece in windows(each, loaded.lead, window)),
        key=lambda piece: (-len(piece[1]), piece[0]),  # so that a batch wastes little padding
    )
    budget = GPU_LOGITS_AT_ONCE if next(loaded.model.parameters()).is_cuda else LOGITS_AT_ONCE
    longest = len(pieces[0][1]) if pieces else 1
    per_pass = max(1, budget // (loaded.vocab_size * longest))
    nats = np.zeros(len(encoded), dtype=np.float64)
    correct = np.zeros(len(encoded), dtype=np.int64)
    for batch in tracked([pieces[first : first + per_pass] for first in range(0, len(pieces), per_pass)]):
        inputs = _padded([piece[1] for piece in batch], 0)
        targets = _padded([piece[2] for piece in batch], NOT_SCORED)
        window_nats, window_correct = score_windows(loaded.model, inputs, targets, eos=-1)
        for (row, _, _), window_nat, hits in zip(batch, window_nats.tolist(), window_correct.tolist()):
            nats[row] += window_nat
            correct[row] += hits
    return nats, correct


def windows(encoded: Encoded, lead: Sequence[int], window: int) -> list[tuple[list[int], list[int]]]:
    """(inputs, targets) of every window that has something to score, -100 where nothing is.

    A window holds the lead and as many tokens as fit; the next one begins behind them, as training reads a stream, and the token
    there was predicted by the window before.
    """
    targets = [NOT_SCORED] * encoded.scored + encoded.ids[encoded.scored :].tolist()
    ids = encoded.ids.tolist()
    stride = window - len(lead)
    found = []
    for start in range(0, max(1, len(ids) - 1), stride):
        stop = min(start + stride, len(ids) - 1)
        opened = [*[NOT_SCORED] * (len(lead) - 1), targets[0] if start == 0 else NOT_SCORED] if lead else []
        piece = ([*lead, *ids[start:stop]], [*opened, *targets[start + 1 : stop + 1]])
        if any(target != NOT_SCORED for target in piece[1]):
            found.append(piece)
    return found


def _padded(rows_: Sequence[Sequence[int]], padding: int) -> torch.Tensor:
    """int64 [B, T]; the padding lies behind the tokens, where a causal model does not look."""
    width = max(len(row) for row in rows_)
    return torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows_], dtype=torch.int64)
