import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.batches import Loader, Order, with_replay
from headrace.checkpoint.canonical import load_model
from headrace.checkpoint.write import Writer
from headrace.config import ConfigError, validate
from headrace.model import DecoderConfig, EncoderDecoderConfig, ModelSpec
from headrace.model.sequential import build_model
from headrace.tokens.store import TokenStore, write_store
from headrace.tokens.tokenizer import Tokens
from headrace.train.config import Start, TrainConfig
from headrace.train.spec import TrainSpec
from headrace.train.start import Origin, check_start, record, recorded, resolve, tokenizer_digest

VOCAB = 97
MODEL = {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "mlp": 34}
FINGERPRINT = "0" * 16  # of a store that was not made by a stage


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def tokens_of(folder: Path, tokenizer: Any, seed: int, length: int = 16) -> TokenStore:
    generator = np.random.default_rng(seed)
    streams = {
        name: {"train": [generator.integers(0, VOCAB - 1, 500).tolist()], "validation": [generator.integers(0, VOCAB - 1, 40).tolist()]}
        for name in ("a", "b")
    }
    store = write_store(folder, streams, vocab_size=VOCAB, eos=VOCAB - 1, sequence_length=length)
    tokenizer.save(str(folder / "tokenizer.json"))
    return store


def write_checkpoint(run: Path, step: int) -> Path:
    """A checkpoint as the worker writes it; its weights are those that the step would be drawn as a seed."""
    tokens = run / "data" / "tokens" / FINGERPRINT
    spec = TrainSpec(run=run, tokens=tokens, seed=7, mixture={"a": 1.0, "b": 3.0}, model=DecoderConfig(**MODEL), train=TrainConfig())
    config = spec.model.sized(VOCAB, 16)
    writer = Writer(run / "train" / "checkpoints", step)
    for name, weight in build_model(config, seed=step).named_parameters():
        writer.add("model", name, weight)
    about = {
        "model": config.model_dump(mode="json"),
        "state": {"step": step, "tokens_fingerprint": FINGERPRINT},
        "config": spec.fixed(FINGERPRINT),
        "layout": {},
        "versions": {},
    }
    return writer.publish(about, tokens / "tokenizer.json")


@pytest.fixture
def old(tmp_path: Path, byte_tokenizer: Any) -> Path:
    """A finished run of three checkpoints."""
    run = tmp_path / "old"
    tokens_of(run / "data" / "tokens" / FINGERPRINT, byte_tokenizer(VOCAB), seed=1)
    (run / "config.yaml").write_text("out: old\n")
    for step in (0, 100, 200):
        write_checkpoint(run, step)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Folder of the run that starts from it."""
    return tmp_path / "new"


@pytest.fixture
def published(tmp_path: Path, publish: Any, llama: Any, byte_tokenizer: Any) -> Path:
    return publish(tmp_path / "published", llama(VOCAB, 32, hidden_size=32, num_attention_heads=4), byte_tokenizer(VOCAB))


def start(checkpoint: object, replay: float = 0.0) -> Start:
    return Start(checkpoint=str(checkpoint), replay=replay)


def read(origin: Origin) -> dict[str, torch.Tensor]:
    with origin.weights() as weights:
        return {name: weights.get(name) for name in weights.weights}


def model(**values: Any) -> ModelSpec:
    """A model as a user writes it."""
    kind = EncoderDecoderConfig if values.get("architecture") == "encoder_decoder" else DecoderConfig
    return validate(kind, values, "model")


def tear(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + b"torn off")


def test_a_step_of_a_run(old: Path, run: Path) -> None:
    origin = resolve(start(f"{old}@100"), run)
    assert (origin.folder.name, origin.step, origin.asked) == ("step-00000100", 100, f"{old}@100")
    config, expected = load_model(origin.folder)
    found = read(origin)
    assert origin.model == config and found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert origin.mixture == {"a": 1.0, "b": 3.0}
    assert origin.tokens == old / "data" / "tokens" / FINGERPRINT
    assert Origin.model_validate(json.loads(json.dumps(origin.model_dump(mode="json")))) == origin


def test_the_newest_whole_checkpoint_of_a_run(old: Path, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert resolve(start(old), run).step == 200
    tear(old / "train" / "checkpoints" / "step-00000200")
    with caplog.at_level(logging.WARNING, logger="headrace"):
        assert resolve(start(old), run).step == 100
    assert "passed over" in caplog.text and "step-00000200" in caplog.text


def test_a_published_model(published: Path, run: Path) -> None:
    origin = resolve(start(published), run)
    assert (origin.step, origin.tokens, origin.folder) == (None, None, published)
    sizes = DecoderConfig(layers=2, hidden=32, heads=4, kv_heads=4, mlp=32, norm_eps=1e-6)
    assert origin.model == sizes.sized(VOCAB, 32)
    weights = read(origin)
    assert weights["blocks.1.attention.qkv.weight"].shape == (96, 32)
    assert sorted(weights) == sorted(dict(build_model(origin.model, None).named_parameters()))


def test_paths_may_hold_an_at_sign(old: Path, run: Path) -> None:
    twin = old.with_name("old@100")
    shutil.copytree(old, twin)
    assert resolve(start(twin), run).step == 200
    assert resolve(start(f"{twin}@0"), run).folder == twin / "train" / "checkpoints" / "step-00000000"


@pytest.mark.parametrize(
    "named, message",
    [
        ("{old}@150", r"old@150': .*old has no checkpoint of step 150; it has 0, 100, 200\."),
        ("{tmp}/nowhere", r"nowhere': no such folder; give RUN@STEP or RUN.* Models are never fetched"),
        ("someone/some-model", r"some-model': no such folder"),
        ("{tmp}/nowhere@3", r"nowhere@3': no such folder"),
        ("{old}/data", r"data': neither a run's checkpoints .* nor a model"),
        ("{old}/train/checkpoints/step-00000100", r"a checkpoint is named by its run: train\.start\.checkpoint=.*old@100\."),
        ("{tmp}/new", "is this run itself"),
        ("{tmp}/young", r"young has no checkpoint yet; `headrace train .*young/config\.yaml` makes them"),
        ("{tmp}/young@5", "young has no checkpoint yet"),
    ],
)
def test_what_names_nothing_to_start_from_is_refused(old: Path, run: Path, tmp_path: Path, named: str, message: str) -> None:
    for name in ("young", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("out: x\n")
    with pytest.raises(ConfigError, match=message) as refused:
        resolve(start(named.format(old=old, tmp=tmp_path)), run)
    assert str(refused.value).startswith("train.start.checkpoint = ")


def test_a_torn_checkpoint_is_refused_with_the_newest_whole_one(old: Path, run: Path) -> None:
    root = old / "train" / "checkpoints"
    tear(root / "step-00000200")
    with pytest.raises(ConfigError, match=r"model\.safetensors: its SHA-256 differs .*; the newest that is whole is .*old@100\."):
        resolve(start(f"{old}@200"), run)
    for step in (0, 100):
        tear(root / f"step-{step:08d}")
    with pytest.raises(ConfigError, match="no other is whole"):
        resolve(start(f"{old}@200"), run)
    with pytest.raises(ConfigError, match=r"no checkpoint of .*old is whole: .*model\.safetensors"):
        resolve(start(old), run)


def given(origin: Path) -> Tokens:
    return Tokens(tokenizer=str(origin))


def test_a_model_that_is_not_described_is_the_start_s(old: Path, run: Path, published: Path) -> None:
    tokenizer = given(old / "data" / "tokens" / FINGERPRINT / "tokenizer.json")
    taken = check_start(start(old), run, DecoderConfig(), tokenizer)
    assert taken == DecoderConfig(**MODEL)
    assert check_start(start(old), run, model(layers=2, mlp=34), tokenizer) == taken
    assert check_start(start(old), run, model(dropout=0.1), tokenizer) == DecoderConfig(**MODEL, dropout=0.1), "a matter of training"
    assert check_start(start(old), run, taken, tokenizer) == taken, "as it stands in RUN/config.yaml, with every default"
    theirs = check_start(start(published), run, DecoderConfig(), given(published / "tokenizer.json"))
    assert (theirs.layers, theirs.hidden, theirs.mlp, theirs.norm_eps) == (2, 32, 32, 1e-6)
    plain = model(layers=2, hidden=32, heads=4, kv_heads=None, mlp=32)
    assert check_start(start(published), run, plain, given(published / "tokenizer.json")) == theirs


@pytest.mark.parametrize(
    "values, message",
    [
        ({"layers": 3}, r"another model: model\.layers = 3, but 2 there\. Leave out"),
        ({"preset": "124m"}, r"model\.heads = 12, but 4 there; model\.hidden = 768, but 32 there; model\.layers = 12, but 2 there\."),
        ({"kv_heads": 4}, r"model\.kv_heads = 4, but 2 there"),
        ({"tied_embeddings": True}, r"model\.tied_embeddings = True, but False there"),
        (
            {"architecture": "encoder_decoder", "encoder_layers": 2},
            r"model\.architecture = 'encoder_decoder', but 'decoder' there; model\.encoder_layers = 2, but None there",
        ),
    ],
)
def test_another_model_is_refused_by_its_fields(old: Path, run: Path, values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_start(start(old), run, model(**values), given(old / "data" / "tokens" / FINGERPRINT / "tokenizer.json"))


def test_another_tokenizer_is_refused_with_the_one_that_fits(old: Path, run: Path, tmp_path: Path, byte_tokenizer: Any) -> None:
    fits = old / "data" / "tokens" / FINGERPRINT / "tokenizer.json"
    with pytest.raises(ConfigError, match=rf"tokens\.tokenizer = 'bpe': would train one .*: set tokens\.tokenizer={fits}\."):
        check_start(start(old), run, DecoderConfig(), Tokens())
    other = tmp_path / "other.json"
    byte_tokenizer(96).save(str(other))
    with pytest.raises(ConfigError, match=rf"other\.json': not that of .*old'; .*: set tokens\.tokenizer={fits}\."):
        check_start(start(old), run, DecoderConfig(), given(other))
    shutil.rmtree(old / "data")
    with pytest.raises(ConfigError, match=r"set tokens\.tokenizer=.*checkpoints/step-00000200/tokenizer\.json"):
        check_start(start(old), run, DecoderConfig(), Tokens())


def test_a_tokenizer_is_the_same_however_its_file_is_spelt(tmp_path: Path, byte_tokenizer: Any) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    tokenizer = byte_tokenizer(VOCAB)
    tokenizer.save(str(one))
    tokenizer.enable_truncation(512)
    description = json.loads(tokenizer.to_str())
    other.write_text(json.dumps(dict(reversed(description.items()))))
    assert one.read_bytes() != other.read_bytes() and tokenizer_digest(one) == tokenizer_digest(other)
    description["model"]["vocab"] |= {"!": 1, '"': 0}
    other.write_text(json.dumps(description))
    assert tokenizer_digest(one) != tokenizer_digest(other)
    other.write_text("{}")
    with pytest.raises(ConfigError, match=r"other\.json: .*; it should be a tokenizer\.json"):
        tokenizer_digest(other)


def test_the_worker_looks_again_at_what_there_is(old: Path, run: Path, tmp_path: Path, byte_tokenizer: Any) -> None:
    origin = resolve(start(old), run)
    alike, unlike = (tokens_of(tmp_path / name, byte_tokenizer(size), seed=2) for name, size in (("alike", VOCAB), ("unlike", 96)))
    origin.check(alike, DecoderConfig(**MODEL))
    origin.check(alike, origin.model)
    with pytest.raises(ConfigError, match=r"unlike: its tokens are not those of .*old'; .*: set tokens\.tokenizer="):
        origin.check(unlike, origin.model)
    with pytest.raises(ConfigError, match=r"another model: model\.heads = 2, but 4 there"):
        origin.check(alike, DecoderConfig(**{**MODEL, "heads": 2}))


def test_every_reason_is_given_at_once(old: Path, run: Path) -> None:
    shutil.rmtree(old / "data")
    with pytest.raises(ConfigError) as refused:
        check_start(start(old, replay=0.1), run, model(layers=9, heads=2), Tokens())
    lines = str(refused.value).splitlines()
    assert [line.split(" = ")[0] for line in lines] == ["train.start.checkpoint", "tokens.tokenizer", "train.start.replay"]
    assert f"not there any more; `headrace data {old}/config.yaml` makes the old run's tokens again, or set" in lines[2]


def test_a_published_model_has_nothing_to_replay(published: Path, run: Path) -> None:
    with pytest.raises(ConfigError, match=r"replay = 0\.2: .*published is a model without its data; set train\.start\.replay=0"):
        check_start(start(published, replay=0.2), run, DecoderConfig(), given(published / "tokenizer.json"))
    origin = resolve(start(published), run)
    assert origin.replay(0.0) is None
    with pytest.raises(ConfigError, match="a model without its data"):
        origin.replay(0.2)


def test_old_data_that_is_not_whole_is_not_replayed(old: Path, run: Path) -> None:
    origin = resolve(start(old), run)
    assert origin.data_breach() is None
    (old / "data" / "tokens" / FINGERPRINT / "tokens" / "train" / "u00001.bin").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"train\.start\.replay = 0\.1: .*u00001\.bin: 5 bytes, the manifest says .*; `headrace data"):
        origin.replay(0.1)


def test_the_old_data_is_read_by_its_run_s_weights(old: Path, run: Path, tmp_path: Path, byte_tokenizer: Any) -> None:
    replay = resolve(start(old), run).replay(0.25)
    assert replay is not None and replay.weights == {"a": 1.0, "b": 3.0}
    store = tokens_of(tmp_path / "tokens", byte_tokenizer(VOCAB), seed=2, length=8)
    union, weights = with_replay(store, {"a": 1.0, "b": 1.0}, replay)
    order = Order(7, {name: union.num_sequences(name, "train") for name in union.sources}, weights)
    source, _ = order.samples(0, 1024)
    counts = dict(zip(order.sources, np.bincount(source, minlength=4).tolist()))
    assert counts == {"a": 384, "b": 384, "replay/a": 64, "replay/b": 192}
    assert Loader(union, order, 12, 4, 0, 1).read(0).shape == (12, 9)


def test_the_start_is_recorded_by_the_first_command(old: Path, run: Path) -> None:
    first = record(start(old), run)
    assert first.step == 200
    write_checkpoint(old, 300)
    assert recorded(start(old), run) == first, "`RUN` names another checkpoint now, but not for this run"
    assert recorded(start(f"{old}@300"), run).step == 300
    assert resolve(start(old), run).step == 300


def test_a_start_that_went_before_the_first_step_is_looked_up_again(old: Path, run: Path) -> None:
    first = record(start(old), run)
    shutil.rmtree(first.folder)
    assert recorded(start(old), run).step == 100
    record(start(f"{old}@0"), run)
    tear(old / "train" / "checkpoints" / "step-00000100")
    assert record(start(old), run).step == 0


def test_a_published_model_is_known_again_by_its_bytes(published: Path, run: Path) -> None:
    first = record(start(published), run)
    (published / "config.json").touch()
    assert first.unchanged() and recorded(start(published), run) == first
    settings = published / "config.json"
    settings.write_text(settings.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.5'))
    assert not first.unchanged()
    assert record(start(published), run).model.norm_eps == 0.5
    shutil.rmtree(published)
    with pytest.raises(ConfigError, match=r"train\.start\.checkpoint = .*published': no such folder"):
        recorded(start(published), run)


def test_a_run_that_has_begun_needs_its_start_no_more(old: Path, run: Path) -> None:
    tokens = given(run / "data" / "tokens" / FINGERPRINT / "tokenizer.json")
    shutil.copytree(old / "data", run / "data")
    first = record(start(old), run)
    expected = check_start(start(old), run, DecoderConfig(), tokens)
    write_checkpoint(run, 0)
    shutil.rmtree(old)
    assert recorded(start(old), run) == first
    assert check_start(start(old), run, DecoderConfig(), tokens) == expected
    with pytest.raises(ConfigError, match="no such folder"):
        recorded(start(f"{old}@100"), run)


def test_weights_that_changed_are_not_read(old: Path, published: Path, run: Path) -> None:
    gone = resolve(start(f"{old}@0"), run)
    shutil.rmtree(gone.folder)
    with pytest.raises(ConfigError, match=r"no manifest\.json.* The run was to start from it; name another with"):
        gone.weights()
    for named in (old, published):
        origin = resolve(start(named), run)
        changed = origin.folder / ("manifest.json" if origin.step else "config.json")
        changed.write_bytes(changed.read_bytes() + b"\n")
        with pytest.raises(ConfigError, match="has changed since; the same command again starts from what is there now"):
            origin.weights()


def test_a_checkpoint_records_the_start_by_its_digest(old: Path, run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    here = resolve(start(f"{old}@100"), run).fixed(0.1)
    shutil.move(old, moved)
    assert resolve(start(f"{moved}@100"), run).fixed(0.1) == here
    assert resolve(start(f"{moved}@200"), run).fixed(0.1) != here
    assert str(old) not in json.dumps(here)
