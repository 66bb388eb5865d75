import hashlib
import json
import math

import pytest

from headrace.evaluate.config import EvaluateConfig
from headrace.evaluate.ngram import score_baselines
from headrace.evaluate.suite import evaluate_checkpoint
from headrace.tokens.store import TokenStore

CONFIG = EvaluateConfig(max_tokens=200)


def test_the_result_says_what_was_scored_and_where_it_came_from(trained, tmp_path):
    tokens, checkpoint = trained
    out = tmp_path / "eval" / checkpoint.name / "fast.json"
    result = evaluate_checkpoint(checkpoint, tokens, CONFIG, out)
    assert json.loads(out.read_text()) == result
    assert (result["suite"], result["checkpoint"], result["step"]) == ("fast", "step-00000100", 100)
    assert result["checkpoint_manifest_sha256"] == hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest()
    assert result["tokens_fingerprint"] == TokenStore.open(tokens).fingerprint
    assert {row["source"] for row in result["metrics"]} == {"all", "books", "web"}
    pooled = {row["metric"]: row for row in result["metrics"] if row["source"] == "all"}
    # Random weights know nothing: about uniform over the 64 tokens.
    assert result["validation_loss"] == pytest.approx(math.log(64), abs=0.1)
    assert pooled["token_perplexity"]["value"] == pytest.approx(math.exp(result["validation_loss"]))
    nats = result["validation_loss"] * result["scored_tokens"]
    assert pooled["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / result["bytes"])
    assert pooled["bits_per_byte"]["stderr"] > 0
    assert pooled["bits_per_byte"]["n_documents"] == result["n_documents"]


def test_scores_are_the_same_every_time(trained, tmp_path):
    tokens, checkpoint = trained
    first, second = (evaluate_checkpoint(checkpoint, tokens, CONFIG, tmp_path / f"{turn}.json") for turn in "ab")
    assert first.pop("seconds") > 0
    assert first.pop("peak_rss_bytes") > 1 << 20
    assert first == {key: value for key, value in second.items() if key not in {"seconds", "peak_rss_bytes"}}


def test_baselines_are_scored_on_the_very_same_tokens(trained, tmp_path):
    tokens, checkpoint = trained
    scores = evaluate_checkpoint(checkpoint, tokens, CONFIG, tmp_path / "fast.json")
    baselines = score_baselines(tokens, CONFIG, tmp_path / "baselines.json")
    for key in ("scored_tokens", "bytes", "n_documents", "tokens_fingerprint", "definition", "max_tokens"):
        assert scores[key] == baselines[key]


def test_another_tokenizer_is_refused(trained, tmp_path, byte_tokenizer):
    tokens, checkpoint = trained
    byte_tokenizer(65).save(str(checkpoint / "tokenizer.json"))
    with pytest.raises(ValueError, match="tokenizer differs"):
        evaluate_checkpoint(checkpoint, tokens, CONFIG, tmp_path / "fast.json")
    assert not (tmp_path / "fast.json").exists()
