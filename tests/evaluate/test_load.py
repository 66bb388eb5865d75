import json

import pytest
import torch
from tokenizers import Tokenizer

from headrace.checkpoint import CheckpointError
from headrace.checkpoint.write import Writer
from headrace.evaluate.load import load_checkpoint
from headrace.model import DecoderConfig, EncoderDecoderConfig
from headrace.model.sequential import build_model


def test_the_weights_and_what_belongs_to_them(trained):
    tokens, checkpoint = trained
    loaded = load_checkpoint(checkpoint)
    written = dict(build_model(loaded.config, seed=4).named_parameters())
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, written[name])
        assert parameter.dtype == torch.float32
    assert not loaded.model.training
    assert loaded.eos == 63
    assert loaded.manifest["state"]["step"] == 100
    assert loaded.tokenizer.to_str() == Tokenizer.from_file(str(tokens / "tokenizer.json")).to_str()


def test_tied_embeddings_are_one_tensor(trained, tmp_path):
    tokens, _ = trained
    config = DecoderConfig(layers=1, hidden=8, heads=2, tied_embeddings=True).sized(64, 16)
    about = {"model": config.model_dump(mode="json"), "state": {"step": 7}, "config": {}, "layout": {}, "versions": {}}
    writer = Writer(tmp_path, 7)
    for name, parameter in build_model(config, seed=1).named_parameters():
        writer.add("model", name, parameter)
    model = load_checkpoint(writer.publish(about, tokens / "tokenizer.json")).model
    assert model.head.weight is model.embed.weight


def test_an_uncommitted_checkpoint_is_refused(trained):
    _, checkpoint = trained
    (checkpoint / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="never committed"):
        load_checkpoint(checkpoint)


def test_tensors_of_another_model_are_refused(trained):
    _, checkpoint = trained
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["model"]["layers"] = 3
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"do not fit the model.*blocks\.2\."):
        load_checkpoint(checkpoint)


def test_an_encoder_decoder_is_refused(trained, tmp_path):
    tokens, _ = trained
    config = EncoderDecoderConfig(layers=1, encoder_layers=1, hidden=8, heads=2).sized(64, 16)
    about = {"model": config.model_dump(mode="json"), "state": {"step": 7}, "config": {}, "layout": {}, "versions": {}}
    writer = Writer(tmp_path, 7)
    for name, parameter in build_model(config, seed=1).named_weights():
        writer.add("model", name, parameter)
    with pytest.raises(ValueError, match="an encoder_decoder gives no probability"):
        load_checkpoint(writer.publish(about, tokens / "tokenizer.json"))
