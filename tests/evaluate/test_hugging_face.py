import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing

from headrace.config import ConfigError
from headrace.evaluate.hugging_face import load_hugging_face
from headrace.tokens.tokenizer import END_OF_TEXT, train_bpe

VOCAB = 300


@pytest.fixture
def tokenizer():
    return train_bpe(["the cat sat on the mat and that was that"] * 5, VOCAB)


@pytest.fixture
def folder(tmp_path, publish, llama, tokenizer):
    return publish(tmp_path / "model", llama(VOCAB, 16), tokenizer, eos_token=END_OF_TEXT)


def change(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_the_model_and_what_belongs_to_it(folder, tokenizer):
    loaded = load_hugging_face(folder)
    assert (loaded.context, loaded.vocab_size, loaded.architecture) == (16, VOCAB, "LlamaForCausalLM")
    assert (loaded.lead, loaded.eos) == ([], tokenizer.token_to_id(END_OF_TEXT))
    assert [path.name for path in loaded.files] == ["config.json", "tokenizer.json", "model.safetensors"]
    assert all(parameter.dtype == torch.float32 for parameter in loaded.model.parameters())
    tokens = torch.tensor([[3, 1, 4]])
    embedded = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(loaded.model.model.get_input_embeddings()(tokens), embedded[tokens])
    assert loaded.model(tokens, torch.empty(0)).shape == (1, 3, VOCAB)


def test_weights_are_scored_in_float32_however_they_were_saved(tmp_path, publish, llama, tokenizer):
    folder = publish(tmp_path / "half", llama(VOCAB, 16).to(torch.bfloat16), tokenizer)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in load_hugging_face(folder).model.parameters()} == {torch.float32}


def test_weights_in_several_files(tmp_path, publish, llama, tokenizer):
    model = llama(VOCAB, 16)
    folder = publish(tmp_path / "shards", model, tokenizer)
    model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    loaded = load_hugging_face(folder)
    assert len(loaded.files) > 3
    tokens = torch.tensor([[3, 1, 4]])
    assert torch.allclose(loaded.model(tokens, torch.empty(0)), model.eval()(tokens).logits, atol=1e-5)


def test_the_tokenizer_is_taken_as_it_encodes_plain_text(tmp_path, publish, llama, tokenizer):
    tokenizer.post_processor = TemplateProcessing(single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, 0)])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=50)
    loaded = load_hugging_face(publish(tmp_path / "model", llama(VOCAB, 16), tokenizer))
    assert loaded.lead == [0]
    spelled = loaded.tokenizer.encode(f"the mat{END_OF_TEXT}", add_special_tokens=False).ids
    assert 0 not in spelled
    assert len(spelled) > 5


@pytest.mark.parametrize(
    "named, listed, found",
    [
        ({"eos_token": END_OF_TEXT}, None, 0),
        ({"eos_token": {"content": END_OF_TEXT, "lstrip": False}}, 7, 0),
        ({}, 0, 0),
        ({}, [7, 0], 0),
        ({}, 7, None),  # no special token: a number that nobody chose
        ({}, None, None),
        (None, 0, 0),
    ],
)
def test_the_end_of_text_token_is_the_one_that_is_named(folder, named, listed, found):
    path = folder / "tokenizer_config.json"
    path.unlink() if named is None else path.write_text(json.dumps(named))
    change(folder, eos_token_id=listed)
    assert load_hugging_face(folder).eos == found


def test_a_model_that_is_pickled_is_refused(folder, payload):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(payload)
    with pytest.raises(ConfigError, match=r"no model\.safetensors; pytorch_model\.bin can run code"):
        load_hugging_face(folder)


@pytest.mark.parametrize("listed", ["pytorch_model.bin", "../model.safetensors", "sub/model.safetensors"])
def test_an_index_that_lists_anything_but_safetensors_of_the_folder_is_refused(folder, payload, listed):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(payload)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": listed}}))
    with pytest.raises(ConfigError, match="only safetensors files in the folder itself"):
        load_hugging_face(folder)


@pytest.mark.parametrize("name", ["adapter_model.bin", "../model.safetensors"])
def test_a_configuration_that_names_another_file_of_weights_is_refused(folder, payload, name):
    (folder / "adapter_model.bin").write_bytes(payload)
    change(folder, transformers_weights=name)
    with pytest.raises(ConfigError, match="only safetensors files in the folder itself"):
        load_hugging_face(folder)


def test_code_that_comes_with_a_model_is_never_run(folder, tmp_path):
    trace = tmp_path / "run"
    (folder / "own.py").write_text(f"open({str(trace)!r}, 'w')\n")
    change(folder, model_type="own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"})
    with pytest.raises(ConfigError, match="code that comes with a model is never run"):
        load_hugging_face(folder)
    assert not trace.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"quantization_config": {"quant_method": "fp8"}},
        {"attn_implementation": "someone/kernel"},
        {"text_config": {"attn_implementation": "someone/kernel"}},
    ],
)
def test_settings_that_need_more_than_the_folder_are_refused(folder, settings):
    change(folder, **settings)
    with pytest.raises(ConfigError, match=r"config\.json: .* not read"):
        load_hugging_face(folder)


def test_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds an adapter"):
        load_hugging_face(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=name):
        load_hugging_face(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_that_is_no_json_is_named(folder, name):
    (folder / name).write_text("{")
    with pytest.raises(ConfigError, match=name):
        load_hugging_face(folder)


def test_a_name_is_no_folder_and_nothing_is_fetched(tmp_path):
    with pytest.raises(ConfigError, match=r"no such folder\. Models are never fetched"):
        load_hugging_face(tmp_path / "gpt2")


def test_a_weight_that_is_not_there_is_not_made_up(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"weights lack model\.layers\.1\.mlp\.up_proj\.weight"):
        load_hugging_face(folder)


def test_a_torn_file_of_weights_is_told(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="cannot load it"):
        load_hugging_face(folder)


def test_a_tokenizer_of_another_model_is_refused(tmp_path, publish, llama, tokenizer):
    folder = publish(tmp_path / "model", llama(tokenizer.get_vocab_size() - 1, 16), tokenizer)
    with pytest.raises(ConfigError, match="do not belong together"):
        load_hugging_face(folder)


def test_a_model_that_sees_what_it_is_to_predict_is_refused(tmp_path, publish, tokenizer):
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    made = transformers.BertLMHeadModel(transformers.BertConfig(vocab_size=VOCAB, **sizes))
    with pytest.raises(ConfigError, match="no causal language model"):
        load_hugging_face(publish(tmp_path / "bert", made, tokenizer))


def test_without_the_extra_the_way_to_it_is_told(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'headrace\[evaluate\]'"):
        load_hugging_face(folder)
