import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from headrace.checkpoint import Reader, export
from headrace.checkpoint.export import export_hugging_face
from headrace.checkpoint.hugging_face import HuggingFaceReader
from headrace.checkpoint.write import Writer
from headrace.config import ConfigError
from headrace.model import DecoderConfig, ModelConfig
from headrace.model.aux import decoder_aux
from headrace.model.sequential import build_model

VOCAB = 64
SIZES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"heads": 4, "kv_heads": 2, "mlp": 44},
    "tied": {"tied_embeddings": True, "kv_heads": 1},
    "constants": {"norm_eps": 0.1, "rope_theta": 50.0},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def model_of(sizes: dict[str, Any]) -> torch.nn.Module:
    """A model whose weights are wide enough apart that its wiring matters."""
    model = build_model(DecoderConfig(**{"layers": 2, "hidden": 16, "heads": 2, **sizes}).sized(VOCAB, 16), seed=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20.0 if parameter.ndim > 1 else 1.5)
    return model.eval()


def write(root: Path, config: ModelConfig, weights: Any, tokenizer: Any, step: int = 3) -> Path:
    tokenizer.save(str(root.with_suffix(".json")))
    writer = Writer(root, step)
    for name, weight in weights:
        writer.add("model", name, weight)
    about = {"model": config.model_dump(mode="json"), "state": {"step": step}, "config": {}, "layout": {}, "versions": {}}
    return writer.publish(about, root.with_suffix(".json"))


@pytest.fixture(params=SIZES)
def trained(tmp_path: Path, byte_tokenizer: Any, request: pytest.FixtureRequest) -> tuple[torch.nn.Module, Path]:
    model = model_of(SIZES[request.param])
    return model, write(tmp_path / "checkpoints", model.config, model.named_parameters(), byte_tokenizer(VOCAB))


def test_transformers_computes_what_our_decoder_does(tmp_path: Path, trained: tuple[torch.nn.Module, Path]) -> None:
    model, checkpoint = trained
    export_hugging_face(checkpoint, tmp_path / "exported")
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "exported", dtype=torch.float32, output_loading_info=True, local_files_only=True
    )
    assert type(loaded) is transformers.LlamaForCausalLM
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    tokens = torch.arange(24).view(2, 12) * 5 % VOCAB
    with torch.inference_mode():
        expected = model(tokens, decoder_aux(tokens, eos=-1))
        assert expected.std() > 0.5
        torch.testing.assert_close(loaded.eval()(tokens).logits, expected, rtol=0, atol=1e-4)


def test_out_and_in_again_changes_no_bit(tmp_path: Path, trained: tuple[torch.nn.Module, Path]) -> None:
    model, checkpoint = trained
    written = export_hugging_face(checkpoint, tmp_path / "exported")
    assert [path.name for path in written] == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing is left aside"
    with Reader(checkpoint) as before, HuggingFaceReader(tmp_path / "exported") as after:
        assert sorted(before.weights) == sorted(after.weights)
        assert all(torch.equal(before.get(name), after.get(name)) for name in before.weights)
        settled = model.config.model_dump() | {"kv_heads": model.config.key_value_heads, "mlp": model.config.mlp_size}
        assert after.config.model_dump() == settled


def test_in_and_out_again_changes_no_bit(tmp_path: Path, publish: Any, llama: Any, byte_tokenizer: Any) -> None:
    tokenizer = byte_tokenizer(VOCAB)
    published = publish(tmp_path / "published", llama(VOCAB, 16, num_attention_heads=4, num_key_value_heads=2), tokenizer)
    with HuggingFaceReader(published) as reader:
        checkpoint = write(tmp_path / "root", reader.config, [(name, reader.get(name)) for name in reader.weights], tokenizer)
    export_hugging_face(checkpoint, tmp_path / "exported")
    before, after = (load_file(folder / "model.safetensors") for folder in (published, tmp_path / "exported"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_large_model_is_cut_into_several_files(tmp_path: Path, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of({})
    checkpoint = write(tmp_path / "root", model.config, model.named_parameters(), byte_tokenizer(VOCAB))
    monkeypatch.setattr(export, "FILE_BYTES", 5000)
    files = export_hugging_face(checkpoint, tmp_path / "exported")
    shards = [path for path in files if path.suffix == ".safetensors"]
    assert len(shards) > 3 and all(path.name.endswith(f"-of-{len(shards):05d}.safetensors") for path in shards)
    index = json.loads((tmp_path / "exported" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * sum(parameter.numel() for parameter in model.parameters())
    with Reader(checkpoint) as before, HuggingFaceReader(tmp_path / "exported") as after:
        assert all(torch.equal(before.get(name), after.get(name)) for name in before.weights)
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "exported", dtype=torch.float32, local_files_only=True)
    assert torch.equal(loaded.lm_head.weight, model.head.weight)


def test_the_tokenizer_comes_along_and_says_what_ends_a_text(tmp_path: Path, byte_tokenizer: Any) -> None:
    model, tokenizer = model_of({}), byte_tokenizer(VOCAB)
    checkpoint = write(tmp_path / "root", model.config, model.named_parameters(), tokenizer)
    export_hugging_face(checkpoint, tmp_path / "exported")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported", local_files_only=True)
    assert loaded("ABC!").input_ids == tokenizer.encode("ABC!").ids
    assert (loaded.eos_token, loaded.eos_token_id) == ("<|endoftext|>", VOCAB - 1)
    settings = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert (settings["eos_token_id"], settings["bos_token_id"], settings["rope_theta"]) == (VOCAB - 1, None, 10_000.0)


def test_a_folder_in_use_is_left_alone(tmp_path: Path, byte_tokenizer: Any) -> None:
    model = model_of({})
    checkpoint = write(tmp_path / "root", model.config, model.named_parameters(), byte_tokenizer(VOCAB))
    (tmp_path / "used").mkdir()
    export_hugging_face(checkpoint, tmp_path / "used")  # an empty one will do
    with pytest.raises(ConfigError, match="used: there is something already"):
        export_hugging_face(checkpoint, tmp_path / "used")


def test_a_torn_checkpoint_is_refused(tmp_path: Path, byte_tokenizer: Any) -> None:
    model = model_of({})
    checkpoint = write(tmp_path / "root", model.config, model.named_parameters(), byte_tokenizer(VOCAB))
    (checkpoint / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigError, match=r"model\.safetensors: 4 bytes.*; export another checkpoint"):
        export_hugging_face(checkpoint, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
