"""The `fast` suite: what every committed checkpoint is scored on."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from headrace import storage
from headrace.evaluate.config import FAST, EvaluateConfig
from headrace.evaluate.excerpts import DEFINITION, choose
from headrace.evaluate.load import load_checkpoint
from headrace.evaluate.metrics import rows
from headrace.evaluate.result import publish
from headrace.evaluate.scoring import score
from headrace.tokens.store import TokenStore


def evaluate_checkpoint(checkpoint: Path, tokens: Path, config: EvaluateConfig, out: Path) -> dict[str, Any]:
    """Score a committed checkpoint on the validation part of a token store and publish the result.

    Args:
        checkpoint: a canonical checkpoint folder.
        tokens: the committed token store that the checkpoint was trained on.
        out: the JSON file to publish, RUN/eval/step-XXXXXXXX/fast.json.

    Returns:
        what the file holds. "metrics": rows {"metric", "source" (or "all"), "value", "stderr", "ci95", "n_documents", "unit"}; a value
        is null where the model gave no finite number. "validation_loss": nats per scored token.

    Raises:
        ValueError: the checkpoint was trained with another tokenizer, or there is no validation text.
    """
    started = time.monotonic()
    store = TokenStore.open(tokens)
    loaded = load_checkpoint(checkpoint)
    tokenizer = Tokenizer.from_file(str(storage.local(tokens / "tokenizer.json")))
    if loaded.tokenizer.to_str() != tokenizer.to_str():
        raise ValueError(f"{checkpoint}: its tokenizer differs from that of {tokens}; score it on the store that it was trained on.")
    excerpts = choose(store, tokenizer, config.max_tokens)
    if not len(excerpts):
        raise ValueError(f"{tokens}: no validation document of two tokens or more; raise split.validation.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scores = score(loaded.model.to(device), store, excerpts, loaded.config.sequence_length, loaded.config.vocab_size)
    loss = float(scores.nats.sum() / scores.tokens.sum())
    manifest_entry = storage.file_entry(checkpoint, checkpoint / "manifest.json")
    found = {
        "suite": FAST,
        "checkpoint": checkpoint.name,
        "step": int(loaded.manifest["state"]["step"]),
        "checkpoint_manifest_sha256": manifest_entry["sha256"],
        "tokens_fingerprint": store.fingerprint,
        "tokenizer_sha256": storage.file_entry(tokens, tokens / "tokenizer.json")["sha256"],
        "metrics": rows(scores),
        "validation_loss": loss if math.isfinite(loss) else None,
        "scored_tokens": int(scores.tokens.sum()),
        "bytes": int(scores.num_bytes.sum()),
        "n_documents": len(excerpts),
        "max_tokens": config.max_tokens,
    }
    return publish(out, found, DEFINITION, started)
