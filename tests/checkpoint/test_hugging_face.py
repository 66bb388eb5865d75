import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from headrace.checkpoint.hugging_face import HuggingFaceReader, llama_parts
from headrace.config import ConfigError
from headrace.model import DecoderConfig, EncoderDecoderConfig
from headrace.model.aux import decoder_aux
from headrace.model.sequential import build_model

VOCAB = 64
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [53, 58, 9, 7, 9, 32, 38, 46]])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path, publish: Any, llama: Any, byte_tokenizer: Any) -> Path:
    return publish(tmp_path / "model", llama(VOCAB, 16), byte_tokenizer(VOCAB))


def ours(folder: Path) -> torch.nn.Module:
    """Our model with a folder's weights, each of which it must have."""
    with HuggingFaceReader(folder) as reader:
        model = build_model(reader.config, None)
        parameters = dict(model.named_parameters())
        assert sorted(parameters) == sorted(reader.weights)
        with torch.no_grad():
            for name, parameter in parameters.items():
                weight = reader.get(name)
                assert weight.dtype == torch.float32 and list(weight.shape) == reader.shape(name) == list(parameter.shape)
                parameter.copy_(weight)
    return model.eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(TOKENS, decoder_aux(TOKENS, eos=-1))


def change(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 44},
        {"num_hidden_layers": 1, "num_key_value_heads": 1, "tie_word_embeddings": True},
        {"rms_norm_eps": 0.1, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    ],
    ids=["plain", "grouped", "tied", "constants"],
)
def test_our_decoder_computes_what_transformers_does(tmp_path: Path, publish: Any, llama: Any, byte_tokenizer: Any, sizes: Any) -> None:
    theirs = llama(VOCAB, 16, **sizes).eval()
    model = ours(publish(tmp_path / "model", theirs, byte_tokenizer(VOCAB)))
    with torch.inference_mode():
        expected = theirs(TOKENS).logits
    assert expected.std() > 0.5, "the weights are wide enough apart to tell one wiring from another"
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_come_in_float32_however_they_were_saved(
    tmp_path: Path, publish: Any, llama: Any, byte_tokenizer: Any, dtype: torch.dtype
) -> None:
    folder = publish(tmp_path / "model", llama(VOCAB, 16).to(dtype), byte_tokenizer(VOCAB))
    assert {weight.dtype for weight in load_file(folder / "model.safetensors").values()} == {dtype}
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    with torch.inference_mode():
        torch.testing.assert_close(logits(ours(folder)), theirs(TOKENS).logits, rtol=0, atol=1e-4)


def test_weights_in_several_files(tmp_path: Path, publish: Any, llama: Any, byte_tokenizer: Any) -> None:
    theirs = llama(VOCAB, 16)
    whole = publish(tmp_path / "whole", theirs, byte_tokenizer(VOCAB))
    cut = publish(tmp_path / "cut", theirs, byte_tokenizer(VOCAB))
    theirs.save_pretrained(cut, max_shard_size="5KB")
    (cut / "model.safetensors").unlink()
    with HuggingFaceReader(whole) as one, HuggingFaceReader(cut) as other:
        assert len(other.files) > 4 and one.weights == other.weights
        assert all(torch.equal(one.get(name), other.get(name)) for name in one.weights)
        assert one.digest() != other.digest()


def test_the_configuration_of_older_files_is_read(folder: Path) -> None:
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    for name in ("rope_parameters", "head_dim", "num_key_value_heads", "tie_word_embeddings", "attention_bias", "mlp_bias"):
        del settings[name]
    path.write_text(json.dumps(settings | {"rope_theta": 500.0, "rope_scaling": None}))
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, folder / "model.safetensors", {"format": "pt"})
    with HuggingFaceReader(folder) as reader:
        assert reader.config == DecoderConfig(layers=2, hidden=16, heads=2, kv_heads=2, mlp=32, rope_theta=500.0, norm_eps=1e-6).sized(
            64, 16
        )


def test_rows_behind_the_last_id_are_left_out(tmp_path: Path, publish: Any, llama: Any, byte_tokenizer: Any) -> None:
    theirs = llama(VOCAB + 16, 16).eval()
    folder = publish(tmp_path / "model", theirs, byte_tokenizer(VOCAB))
    model = ours(folder)
    assert logits(model).shape == (2, 8, VOCAB)
    with torch.inference_mode():
        torch.testing.assert_close(logits(model), theirs(TOKENS).logits[..., :VOCAB], rtol=0, atol=1e-4)


def test_nothing_of_transformers_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert logits(ours(folder)).shape == (2, 8, VOCAB)


def test_the_digest_stands_for_every_byte(folder: Path) -> None:
    def digest() -> str:
        with HuggingFaceReader(folder) as reader:
            return reader.digest()

    first = digest()
    assert first == digest() and len(first) == 64
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    second = digest()
    change(folder, comment="nothing")
    assert len({first, second, digest()}) == 3


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"model_type": "qwen2"}, r"config\.json: model_type = 'qwen2'.* only Llama \(LlamaForCausalLM\) can be read"),
        ({"architectures": ["LlamaForTokenClassification"]}, r"architectures = \['LlamaForTokenClassification'\]: only Llama"),
        ({"attention_bias": True}, "attention_bias = True, not False: our decoder cannot compute that"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu', not 'silu'"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "rope_type = 'llama3', not 'default'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type = 'linear', not 'default'"),
        ({"head_dim": 32}, "head_dim = 32, not hidden_size / num_attention_heads = 8"),
        ({"vocab_size": 60}, r"vocab_size = 60, fewer than the 64 ids of its tokenizer\.json"),
        ({"num_hidden_layers": None}, "no num_hidden_layers; download"),
        ({"num_key_value_heads": 3}, "kv_heads = 3 does not divide heads = 2"),
        ({"num_hidden_layers": 3}, r"weights lack model\.layers\.2\.input_layernorm\.weight, .* \(9 in all\)"),
        ({"num_hidden_layers": 1}, r"weights hold model\.layers\.1\..*\(9 in all\), which a LlamaForCausalLM has not"),
        ({"intermediate_size": 31}, r"model\.layers\.0\.mlp\.up_proj\.weight has shape \[32, 16\], config\.json says \[31, 16\]"),
        ({"vocab_size": 70}, r"model\.embed_tokens\.weight has shape \[64, 16\], config\.json says \[70, 16\]"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config = .* not read, since quantized weights"),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, settings: dict[str, Any], message: str) -> None:
    change(folder, **settings)
    with pytest.raises(ConfigError, match=message):
        HuggingFaceReader(folder)


def test_every_reason_is_given_at_once(folder: Path) -> None:
    change(folder, attention_bias=True, hidden_act="relu", head_dim=4)
    with pytest.raises(ConfigError) as refused:
        HuggingFaceReader(folder)
    assert len(str(refused.value).splitlines()) == 3


def test_weights_with_a_bias_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "model.layers.0.self_attn.q_proj.bias": torch.ones(16)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"hold model\.layers\.0\.self_attn\.q_proj\.bias \(1 in all\)"):
        HuggingFaceReader(folder)


def test_weights_that_are_no_floats_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "model.norm.weight": torch.ones(16, dtype=torch.int8)}, folder / "model.safetensors", {"format": "pt"})
    with HuggingFaceReader(folder) as reader, pytest.raises(ConfigError, match=r"model\.norm\.weight is torch\.int8; only weights in"):
        reader.get("head.norm.weight")


def test_a_tokenizer_with_gaps_is_refused(folder: Path) -> None:
    path = folder / "tokenizer.json"
    Tokenizer.from_file(str(path)).save(str(path))
    description = json.loads(path.read_text())
    description["model"]["vocab"]["!"] = 63
    description["added_tokens"] = []
    path.write_text(json.dumps(description))
    with pytest.raises(ConfigError, match="63 entries with ids up to 63; a tokenizer with gaps"):
        HuggingFaceReader(folder)


@pytest.mark.parametrize("damage", ["torn", "pickled", "listed"])
def test_only_whole_safetensors_are_opened(folder: Path, tmp_path: Path, damage: str) -> None:
    weights = folder / "model.safetensors"
    if damage == "torn":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        weights.unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(torch.zeros(3)))
    if damage == "listed":
        index = {"weight_map": {"model.norm.weight": "pytorch_model.bin"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    messages = {"torn": "no whole safetensors file", "pickled": r"pytorch_model\.bin can run code", "listed": "lists 'pytorch_model.bin'"}
    with pytest.raises(ConfigError, match=messages[damage]):
        HuggingFaceReader(folder)


def test_only_a_decoder_has_a_counterpart() -> None:
    config = DecoderConfig(layers=1, hidden=8, heads=2).sized(11, 4)
    assert len(llama_parts(config)["blocks.0.attention.qkv.weight"]) == 3
    with pytest.raises(ConfigError, match="architecture = 'encoder_decoder': the Hugging Face format is written and read for a decoder"):
        llama_parts(EncoderDecoderConfig(layers=1, encoder_layers=1, hidden=8, heads=2).sized(11, 4))
