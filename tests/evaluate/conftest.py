import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from headrace.checkpoint.write import Writer
from headrace.model import DecoderConfig, build_model
from headrace.tokens.store import write_store

VOCAB = 64


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def byte_tokenizer():
    """A function of a vocabulary's size: byte-level, one byte a token, the end-of-text token last."""

    def build(vocab_size):
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: vocab_size - 1]
        tokenizer = Tokenizer(models.BPE(vocab={character: rank for rank, character in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(["<|endoftext|>"])
        return tokenizer

    return build


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


@pytest.fixture(scope="session")
def publish():
    """A function that writes a model and a tokenizer below a folder in the Hugging Face format, as people publish theirs."""
    import transformers

    transformers.utils.logging.disable_progress_bar()

    def write(folder, model, tokenizer, **special):
        model.save_pretrained(folder)
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
        return folder

    return write


@pytest.fixture(scope="session")
def llama():
    """A function that makes a small Llama of transformers, its weights drawn from the seed, wide enough apart to matter."""
    import transformers

    def build(vocab_size, context, seed=0, **sizes):
        torch.manual_seed(seed)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2} | sizes
        config = transformers.LlamaConfig(
            vocab_size=vocab_size, max_position_embeddings=context, initializer_range=0.5, bos_token_id=None, eos_token_id=None, **sizes
        )
        return transformers.LlamaForCausalLM(config)

    return build
