import numpy as np
import pytest
import torch

from headrace.checkpoint.write import Writer
from headrace.model import DecoderConfig
from headrace.model.sequential import build_model
from headrace.tokens.store import write_store

VOCAB = 64


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def trained(tmp_path, byte_tokenizer):
    """A token store of two sources and a checkpoint of a model for it: (tokens folder, checkpoint folder)."""
    generator = np.random.default_rng(0)
    tokenizer = byte_tokenizer(VOCAB)
    tokens = tmp_path / "tokens"

    def documents(number):
        return [generator.integers(0, VOCAB - 1, size=generator.integers(3, 60)).tolist() for _ in range(number)]

    streams = {source: {"train": documents(20), "validation": documents(6)} for source in ("books", "web")}
    write_store(tokens, streams, vocab_size=VOCAB, eos=VOCAB - 1, sequence_length=16)
    tokenizer.save(str(tokens / "tokenizer.json"))
    config = DecoderConfig(layers=2, hidden=16, heads=2, kv_heads=1).sized(VOCAB, 16)
    about = {"model": config.model_dump(mode="json"), "state": {"step": 100}, "config": {}, "layout": {}, "versions": {}}
    root = tmp_path / "checkpoints"
    writer = Writer(root, 100)
    for name, parameter in build_model(config, seed=4).named_parameters():
        writer.add("model", name, parameter)
    return tokens, writer.publish(about, tokens / "tokenizer.json")
