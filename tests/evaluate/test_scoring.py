import math

import numpy as np
import pytest
import torch

from headrace.evaluate import scoring
from headrace.evaluate.excerpts import choose
from headrace.evaluate.scoring import score
from headrace.model import DecoderConfig
from headrace.model.aux import decoder_aux
from headrace.model.sequential import build_model
from headrace.objectives import CausalLM
from headrace.tokens.store import write_store

VOCAB, LENGTH, EOS = 20, 8, 19
CONFIG = DecoderConfig(layers=2, hidden=16, heads=2, kv_heads=1).sized(VOCAB, LENGTH)


@pytest.fixture
def store(tmp_path):
    generator = np.random.default_rng(5)
    documents = [generator.integers(0, EOS, size=size).tolist() for size in (1, 2, 7, 8, 9, 15, 16, 17, 40)]
    streams = {"a": {"validation": documents}, "b": {"validation": documents[::2]}}
    return write_store(tmp_path, streams, vocab_size=VOCAB, eos=EOS, sequence_length=LENGTH)


@pytest.fixture
def excerpts(store, byte_tokenizer):
    return choose(store, byte_tokenizer(VOCAB), 10_000)


class NextIsOneMore(torch.nn.Module):
    """Gives the token one above probability 1/2 and shares the rest evenly, whatever came before."""

    def __init__(self):
        super().__init__()
        table = torch.full((VOCAB, VOCAB), math.log(0.5 / (VOCAB - 1)))
        for token in range(VOCAB):
            table[token, (token + 1) % VOCAB] = math.log(0.5)
        self.table = torch.nn.Parameter(table)

    def forward(self, tokens, aux):
        return self.table[tokens]


def test_known_probabilities_give_known_nats_and_hits(store, excerpts):
    found = score(NextIsOneMore(), store, excerpts, LENGTH, VOCAB)
    for row in range(len(excerpts)):
        ids = excerpts.ids(store, row)
        hits = int((ids[1:] == (ids[:-1] + 1) % VOCAB).sum())
        misses = len(ids) - 1 - hits
        assert found.tokens[row] == hits + misses
        assert found.correct[row] == hits
        assert found.nats[row] == pytest.approx(hits * math.log(2) + misses * math.log(2 * (VOCAB - 1)), rel=1e-6)


@pytest.mark.parametrize("per_pass", [1, 3, 1000])
def test_windows_are_those_of_training(store, excerpts, monkeypatch, per_pass):
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", per_pass * VOCAB * LENGTH)
    model = build_model(CONFIG, seed=1).eval()
    found = score(model, store, excerpts, LENGTH, VOCAB)
    for row in range(len(excerpts)):
        ids = torch.from_numpy(excerpts.ids(store, row))
        nats = torch.zeros(())
        targets = 0
        for start in range(0, len(ids) - 1, LENGTH):
            example = CausalLM().corrupt(ids[None, start : start + LENGTH + 1], EOS)
            window_nats, counted = CausalLM().loss(model(example.tokens, example.aux), example)
            nats, targets = nats + window_nats.detach(), targets + int(counted)
        assert targets == found.tokens[row]
        assert found.nats[row] == pytest.approx(float(nats), rel=1e-5)


def test_a_document_scores_the_same_alone_and_packed_with_others(store, excerpts):
    # Packing is what training does; scoring documents apart has to agree with it.
    model = build_model(CONFIG.model_copy(update={"sequence_length": 64}), seed=2).eval()
    apart = score(model, store, excerpts, 64, VOCAB)
    rows = [row for row in range(len(excerpts)) if excerpts.source[row] == "b"]
    packed = torch.from_numpy(np.concatenate([excerpts.ids(store, row) for row in rows]))[None]
    with torch.no_grad():
        logits = model(packed[:, :-1], decoder_aux(packed[:, :-1], EOS))
    nats = torch.nn.functional.cross_entropy(logits[0], packed[0, 1:], reduction="none")[packed[0, :-1] != EOS]
    assert apart.nats[rows].sum() == pytest.approx(float(nats.sum()), rel=1e-5)
    assert apart.tokens[rows].sum() == len(nats)
