"""One Ray session for all tests that need one, private to them; what a machine may lack; what kills leave of a run."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked `full` is run by `make faults` alone."""
    if os.environ.get("HEADRACE_FAULTS") != "full":
        for item in items:
            if item.get_closest_marker("full"):
                item.add_marker(pytest.mark.skip(reason="`make faults` runs this"))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray in this process, with two CPUs and a temporary folder of its own (socket paths must be short)."""
    import ray

    temp = tempfile.mkdtemp(prefix="hrt-", dir="/tmp")
    pools = {"data": 2, "train": 2, "evaluate": 1}
    settings = {"include_dashboard": False, "logging_level": "ERROR", "object_store_memory": 256 << 20, "_temp_dir": temp}
    # Functions of the tests themselves are sent by name: workers import them from the root.
    ray.init(num_cpus=6, resources=pools, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, **settings)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
    shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture(scope="session")
def needs() -> Callable[[str, str | None], None]:
    """A function of a thing's name and of why it is not to be had here, None if it is: then the test skips with the reason.

    It fails instead where HEADRACE_REQUIRE (names, comma-separated) lists the thing.
    """

    def need(name: str, lacking: str | None) -> None:
        if lacking is not None:
            required = name in os.environ.get("HEADRACE_REQUIRE", "").split(",")
            (pytest.fail if required else pytest.skip)(f"{name}: {lacking}")

    return need


@pytest.fixture(scope="session")
def program(needs: Callable[[str, str | None], None]) -> Callable[[str], str]:
    """A function that gives the path of an installed program, `needs` it."""

    def find(name: str) -> str:
        path = shutil.which(name)
        needs(name, None if path else "not installed here")
        assert path is not None
        return path

    return find


@pytest.fixture(scope="module")
def rig(needs: Callable[[str, str | None], None]) -> Iterator[Any]:
    """A Ray cluster of a head and three workers of one core each, every node with a network of its own (headrace.cluster.rig)."""
    from headrace.cluster.rig import obstacle, raised

    needs("namespaces", obstacle())
    with raised(nodes=3, cpus=1) as made:
        yield made


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real corpora, beside the project or named by HEADRACE_SHARED."""
    folder = Path(os.environ.get("HEADRACE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("the real corpora are not on this machine; HEADRACE_SHARED=FOLDER names the folder that holds data/")
    return folder


@pytest.fixture
def killed_copies(tmp_path: Path) -> Callable[[Path, int, int, str], list[Path]]:
    """Copies a folder as kills leave it: what was made later is absent, and a file that was being written lies aside.

    The kills come when `first` of its files are there, and after each `every` more.
    """

    def copies(whole: Path, first: int, every: int, aside: str) -> list[Path]:
        files = [path for path in whole.rglob("*") if path.is_file()]
        made = sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.suffix == ".json"))  # a record after what it records
        folders = []
        for last in range(first, len(made), every):
            folders.append(tmp_path / f"killed-{last}")
            for path in made[:last]:
                copy = folders[-1] / path.relative_to(whole)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
            (folders[-1] / aside).mkdir(parents=True)
            (folders[-1] / aside / "half.parquet").write_bytes(b"PAR1")
        return folders

    return copies


@pytest.fixture(scope="session")
def byte_tokenizer() -> Callable[[int], Any]:
    """A function of a vocabulary's size: byte-level, one byte a token, the end-of-text token last."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    def build(vocab_size: int) -> Any:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: vocab_size - 1]
        tokenizer = Tokenizer(models.BPE(vocab={character: rank for rank, character in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(["<|endoftext|>"])
        return tokenizer

    return build


@pytest.fixture(scope="session")
def publish() -> Callable[..., Path]:
    """A function that writes a model and a tokenizer below a folder in the Hugging Face format, as people publish theirs."""
    import transformers

    transformers.utils.logging.disable_progress_bar()

    def write(folder: Path, model: Any, tokenizer: Any, **special: Any) -> Path:
        model.save_pretrained(folder)
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
        return folder

    return write


@pytest.fixture(scope="session")
def llama() -> Callable[..., Any]:
    """A function that makes a small Llama of transformers, its weights drawn from the seed, wide enough apart to matter."""
    import torch
    import transformers

    def build(vocab_size: int, context: int, seed: int = 0, **sizes: Any) -> Any:
        torch.manual_seed(seed)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2} | sizes
        config = transformers.LlamaConfig(
            vocab_size=vocab_size, max_position_embeddings=context, initializer_range=0.5, bos_token_id=None, eos_token_id=None, **sizes
        )
        return transformers.LlamaForCausalLM(config)

    return build


class Traced:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.trace, "w")


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    """An object that leaves a trace when it is unpickled; the test ends well only if nothing did, and if it would have."""
    trace = tmp_path / "unpickled"
    yield Traced(str(trace))
    assert not trace.exists(), "the data ran code"
    pickle.loads(pickle.dumps(Traced(str(trace))))
    assert trace.exists(), "the object is harmless"


@pytest.fixture
def payload(traced: Traced) -> bytes:
    """It, pickled."""
    return pickle.dumps(traced)
