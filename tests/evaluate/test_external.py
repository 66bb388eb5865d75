import json
import math
import socket
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from headrace.checkpoint.write import Writer
from headrace.cli import app, guarded
from headrace.config import ConfigError
from headrace.evaluate import external
from headrace.evaluate.config import EvaluateConfig
from headrace.evaluate.excerpts import choose
from headrace.evaluate.external import Encoded, encode, external_path, score_external, windows
from headrace.evaluate.hugging_face import HuggingFaceModel
from headrace.evaluate.passages import Passage
from headrace.evaluate.suite import evaluate_checkpoint
from headrace.model import DecoderConfig
from headrace.model.sequential import build_model
from headrace.tokens.store import TokenStore, write_store
from headrace.tokens.tokenizer import END_OF_TEXT, train_bpe

CONFIG = EvaluateConfig(max_tokens=400)
CONTEXT = 16
FINGERPRINT = "0" * 16  # that of a store that was written from memory
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "moon",
    "and",
    "but",
    "slowly",
    "quickly",
    "it",
    "was",
    "not",
    "then",
]


@pytest.fixture
def texts():
    generator = np.random.default_rng(1)

    def document():
        return " ".join(generator.choice(WORDS, size=generator.integers(4, 60))) + ".\n"

    return {source: [document() for _ in range(7)] for source in ("books", "web")}


@pytest.fixture
def run(tmp_path, texts):
    """A run as far as its tokens, whose tokenizer has few merges."""
    folder = tmp_path / "run"
    tokens = folder / "data" / "tokens" / FINGERPRINT
    tokenizer = train_bpe(texts["books"], 290)
    streams = {
        source: {"train": [[1, 2, 3]], "validation": [tokenizer.encode(text, add_special_tokens=False).ids for text in documents]}
        for source, documents in texts.items()
    }
    write_store(tokens, streams, vocab_size=290, eos=tokenizer.token_to_id(END_OF_TEXT), sequence_length=CONTEXT)
    tokenizer.save(str(tokens / "tokenizer.json"))
    (folder / "data" / "current.json").write_text(json.dumps({"tokens": FINGERPRINT}))
    sources = [{"name": name, "kind": "book", "path": "*.txt"} for name in texts]
    (folder / "config.yaml").write_text(json.dumps({"out": str(folder), "sources": sources, "evaluate": {"max_tokens": CONFIG.max_tokens}}))
    return folder


@pytest.fixture
def tokens(run):
    return run / "data" / "tokens" / FINGERPRINT


@pytest.fixture
def other():
    """A tokenizer with other merges than the run's: of 'under' and 'mat', it has more."""
    return train_bpe(["under the mat, quickly, quickly under the moon and dog and cat and mat"] * 9, 310)


@pytest.fixture
def offline(monkeypatch):
    """Any attempt to reach another machine fails the test."""

    def refuse(*_):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def bits_per_byte(result):
    return {row["source"]: row["value"] for row in result["metrics"] if row["metric"] == "bits_per_byte"}


def as_llama(llama, config, weights):
    """Our decoder's weights under Llama's names: its fused projections taken apart."""
    made = llama(
        config.vocab_size,
        config.sequence_length,
        hidden_size=config.hidden,
        intermediate_size=config.mlp_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
    )
    queries, keys = config.heads * config.head_size, config.key_value_heads * config.head_size
    state = {
        "model.embed_tokens.weight": weights["embed.weight"],
        "model.norm.weight": weights["head.norm.weight"],
        "lm_head.weight": weights["head.weight"],
    }
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        query, key, value = weights[ours + "attention.qkv.weight"].split((queries, keys, keys))
        gate, up = weights[ours + "mlp.gate_up.weight"].chunk(2)
        state |= {f"{theirs}self_attn.{name}_proj.weight": part for name, part in (("q", query), ("k", key), ("v", value))}
        state |= {f"{theirs}mlp.gate_proj.weight": gate, f"{theirs}mlp.up_proj.weight": up}
        state[theirs + "self_attn.o_proj.weight"] = weights[ours + "attention.out.weight"]
        state[theirs + "mlp.down_proj.weight"] = weights[ours + "mlp.down.weight"]
        state[theirs + "input_layernorm.weight"] = weights[ours + "attention_norm.weight"]
        state[theirs + "post_attention_layernorm.weight"] = weights[ours + "mlp_norm.weight"]
    made.load_state_dict(state)
    return made


def test_our_own_model_scores_the_same_from_outside(run, tokens, tmp_path, publish, llama, offline):
    store = TokenStore.open(tokens)
    config = DecoderConfig(layers=2, hidden=32, heads=4, kv_heads=2, norm_eps=1e-4, rope_theta=500.0).sized(store.vocab_size, CONTEXT)
    model = build_model(config, seed=4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # far from uniform, so that a wrong position or a wrong split would be seen
        for parameter in model.parameters():
            parameter.mul_(5.0 if parameter.ndim > 1 else 1.0).add_(0.1 * torch.randn(parameter.shape, generator=generator))
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    writer = Writer(tmp_path / "checkpoints", 100)
    for name, weight in weights.items():
        writer.add("model", name, weight)
    about = {"model": config.model_dump(mode="json"), "state": {"step": 100}, "config": {}, "layout": {}, "versions": {}}
    checkpoint = writer.publish(about, tokens / "tokenizer.json")
    inside = evaluate_checkpoint(checkpoint, tokens, CONFIG, tmp_path / "fast.json")

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    folder = publish(tmp_path / "model", as_llama(llama, config, weights), tokenizer, eos_token=END_OF_TEXT)
    outside = score_external(folder, tokens, CONFIG, tmp_path / "outside.json")
    assert outside["window"] == CONTEXT
    assert bits_per_byte(inside)["all"] > 3
    for key in ("bytes", "n_documents", "scored_tokens", "tokens_fingerprint", "max_tokens"):
        assert outside[key] == inside[key]
    assert len(outside["metrics"]) == len(inside["metrics"]) == 9
    for ours, theirs in zip(inside["metrics"], outside["metrics"], strict=True):
        assert ours.keys() == theirs.keys()
        assert theirs["value"] == pytest.approx(ours["value"], rel=1e-5)
        assert theirs["stderr"] == pytest.approx(ours["stderr"], rel=1e-4)


@pytest.mark.parametrize("lead", [False, True])
def test_another_tokenizer_s_score_is_that_of_a_plain_loop(tokens, tmp_path, publish, llama, other, lead):
    eos = other.token_to_id(END_OF_TEXT)
    if lead:
        other.post_processor = TemplateProcessing(single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, eos)])
    model = llama(other.get_vocab_size(), CONTEXT).eval()
    folder = publish(tmp_path / "model", model, other, eos_token=END_OF_TEXT)
    found = score_external(folder, tokens, CONFIG, tmp_path / "out.json")
    store = TokenStore.open(tokens)
    ours = Tokenizer.from_file(str(tokens / "tokenizer.json"))
    excerpts = choose(store, ours, CONFIG.max_tokens)
    assert max(excerpts.tokens) == 50 < max(store.documents("web", "validation")["tokens"].to_pylist())  # some are cut, some are not
    opened = [eos] if lead else []
    nats, split = 0.0, 0
    for row in range(len(excerpts)):
        mine = excerpts.ids(store, row).tolist()
        first, text = ours.decode(mine[:1]), ours.decode(mine)
        ids = other.encode(text, add_special_tokens=False).ids
        known = next((n for n in range(len(ids) + 1) if other.decode(ids[:n]) == first), None)
        if known is None:
            split += 1
            head = other.encode(first, add_special_tokens=False).ids
            known, ids = len(head), head + other.encode(text[len(first) :], add_special_tokens=False).ids
        ids += [eos] * (mine[-1] == store.eos)
        stride = CONTEXT - len(opened)
        for place in range(known, len(ids)):
            context = opened + ids[(place - 1) // stride * stride : place]
            with torch.no_grad():
                nats -= float(model(torch.tensor([context])).logits[0, -1].log_softmax(-1)[ids[place]])
    assert 0 < split < len(excerpts)
    assert found["lead"] == [END_OF_TEXT] * lead
    assert found["bytes"] == excerpts.num_bytes.sum()
    assert bits_per_byte(found)["all"] == pytest.approx(nats / math.log(2) / excerpts.num_bytes.sum(), rel=1e-5)


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary(tokens, tmp_path, publish, llama, other):
    model = llama(other.get_vocab_size(), CONTEXT)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    found = score_external(publish(tmp_path / "model", model, other, eos_token=END_OF_TEXT), tokens, CONFIG, tmp_path / "out.json")
    expected = math.log2(other.get_vocab_size()) * found["scored_tokens"] / found["bytes"]
    assert bits_per_byte(found)["all"] == pytest.approx(expected, rel=1e-6)


def test_without_an_end_of_text_token_none_is_charged(tokens, tmp_path, publish, llama, other):
    model = llama(other.get_vocab_size(), CONTEXT)
    with_end = score_external(publish(tmp_path / "a", model, other, eos_token=END_OF_TEXT), tokens, CONFIG, tmp_path / "a.json")
    without = score_external(publish(tmp_path / "b", model, other), tokens, CONFIG, tmp_path / "b.json")
    store = TokenStore.open(tokens)
    excerpts = choose(store, Tokenizer.from_file(str(tokens / "tokenizer.json")), CONFIG.max_tokens)
    ended = sum(int(excerpts.ids(store, row)[-1]) == store.eos for row in range(len(excerpts)))
    assert (with_end["end_of_text"], without["end_of_text"]) == (END_OF_TEXT, None)
    assert with_end["scored_tokens"] - without["scored_tokens"] == ended > 0
    assert with_end["bytes"] == without["bytes"]


@pytest.mark.parametrize("per_pass", [1, 3])
def test_batches_change_nothing(tokens, tmp_path, publish, llama, other, monkeypatch, per_pass):
    folder = publish(tmp_path / "model", llama(other.get_vocab_size(), CONTEXT), other)
    together = score_external(folder, tokens, CONFIG, tmp_path / "a.json")
    monkeypatch.setattr(external, "LOGITS_AT_ONCE", per_pass * other.get_vocab_size() * CONTEXT)
    batches = []
    apart = score_external(folder, tokens, CONFIG, tmp_path / "b.json", tracked=lambda given: batches.extend(given) or given)
    assert max(len(batch) for batch in batches) == per_pass
    assert bits_per_byte(apart) == pytest.approx(bits_per_byte(together), rel=1e-5)


def test_a_passage_is_encoded_apart_only_where_no_token_ends_at_its_border(tmp_path):
    # This tokenizer puts a space in front of whatever it encodes, so that encoding apart shows.
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator(["the cat the cat"] * 3, trainers.BpeTrainer(vocab_size=50, show_progress=False))
    rest = {"eos": None, "context": None, "vocab_size": 50, "architecture": "", "files": []}
    loaded = HuggingFaceModel(tmp_path, torch.nn.Identity(), tokenizer, lead=[], **rest)
    whole, apart = encode(loaded, [Passage("the", " cat", ended=True), Passage("th", "e cat", ended=True)])
    assert [tokenizer.id_to_token(token) for token in whole.ids] == ["▁the", "▁cat"]
    assert whole.scored == 1
    assert [tokenizer.id_to_token(token) for token in apart.ids[apart.scored :]] == ["▁", "e", "▁cat"]
    assert [tokenizer.id_to_token(token) for token in apart.ids[: apart.scored]] == ["▁", "t", "h"]


@pytest.mark.parametrize("lead", [[], [7], [7, 8]])
@pytest.mark.parametrize("count, scored", [(1, 0), (2, 1), (5, 1), (6, 2), (7, 5), (8, 3), (17, 1), (17, 9), (3, 3)])
def test_windows_score_each_token_once(lead, count, scored):
    ids = np.arange(100, 100 + count)
    if not lead:
        scored = max(scored, 1)
    found = windows(Encoded(ids, scored), lead, 5)
    for inputs, targets in found:
        assert len(inputs) == len(targets) <= 5
        assert inputs[: len(lead)] == lead
        for token, target in list(zip(inputs, targets))[len(lead) :]:
            assert target in (token + 1, -100)
    charged = [target for _, targets in found for target in targets if target != -100]
    assert charged == ids[scored:].tolist()


def test_the_result_names_what_was_scored(tokens, tmp_path, publish, llama, other):
    folder = publish(tmp_path / "model", llama(other.get_vocab_size(), 4096), other)
    out = external_path(tmp_path / "run", "a-model")
    found = score_external(folder, tokens, CONFIG, out)
    assert out == tmp_path / "run" / "eval" / "external" / "a-model.json"
    assert json.loads(out.read_text()) == found
    assert (found["name"], found["suite"], found["architecture"]) == ("a-model", "fast", "LlamaForCausalLM")
    assert found["window"] == external.WINDOW  # longer is the model's context, shorter are the run's sequences
    assert [entry["path"] for entry in found["files"]] == ["config.json", "tokenizer.json", "model.safetensors"]
    assert all(len(entry["sha256"]) == 64 for entry in found["files"])
    assert found["seconds"] > 0


def test_another_model_s_score_is_not_overwritten(tokens, tmp_path, publish, llama, other):
    out = external_path(tmp_path, "model")
    first, second = (
        publish(tmp_path / name / "model", llama(other.get_vocab_size(), CONTEXT, seed), other) for seed, name in enumerate("ab")
    )
    score_external(first, tokens, CONFIG, out)
    kept = out.read_bytes()
    with pytest.raises(ConfigError, match="--name"):
        score_external(second, tokens, CONFIG, out)
    assert out.read_bytes() == kept
    score_external(first, tokens, CONFIG, out)


@pytest.mark.parametrize("name", ["../model", "a/b", "", ".hidden", "a b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="--name"):
        external_path(tmp_path, name)


@pytest.fixture
def headrace(monkeypatch, capsys):
    """The command: its exit code, and what it prints on stdout and stderr."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["headrace", *map(str, arguments)])
        code = guarded(app)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def test_the_command_scores_a_model_beside_a_run(run, tmp_path, publish, llama, other, headrace, offline):
    folder = publish(tmp_path / "tiny", llama(other.get_vocab_size(), CONTEXT), other, eos_token=END_OF_TEXT)
    code, out, err = headrace("evaluate", folder, "--text", run)
    assert code == 0, err
    kept = json.loads((run / "eval" / "external" / "tiny.json").read_text())
    assert f"{bits_per_byte(kept)['all']:.3f}" in out
    assert [row["name"] for row in json.loads((run / "report.json").read_text())["external"]] == ["tiny"]
    code, out, _ = headrace("evaluate", folder, "--text", run, "--name", "again", "--json")
    assert code == 0
    assert bits_per_byte(json.loads(out)) == bits_per_byte(kept)
    assert (run / "eval" / "external" / "again.json").is_file()


def test_the_command_says_what_is_missing(run, tmp_path, publish, llama, other, headrace, offline):
    folder = publish(tmp_path / "tiny", llama(other.get_vocab_size(), CONTEXT), other)
    for arguments, told in (
        ((folder,), "--text RUN"),
        (("gpt2",), "neither a run (config.yaml) nor a model (config.json)"),
        (("gpt2", "--text", run), "no such folder"),
        ((folder, "--text", tmp_path), "no run there"),
        ((run, "--text", run), "config.json and tokenizer.json missing"),
    ):
        code, out, err = headrace("evaluate", *arguments)
        assert (code, out) == (2, "")
        assert told in err
        assert len(err.splitlines()) == 1


def test_the_command_names_the_extra(run, tmp_path, publish, llama, other, headrace, monkeypatch):
    folder = publish(tmp_path / "tiny", llama(other.get_vocab_size(), CONTEXT), other)
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, _, err = headrace("evaluate", folder, "--text", run)
    assert code == 2
    assert "pip install 'headrace[evaluate]'" in err
    assert not (run / "eval").exists()
