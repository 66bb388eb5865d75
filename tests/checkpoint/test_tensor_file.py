import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor

from headrace.checkpoint import tensor_file
from headrace.checkpoint.tensor_file import TYPES, as_bytes, write_tensor_file

SHAPES = st.lists(st.integers(0, 5), max_size=3)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


def drawn(shape: list[int], dtype: torch.dtype, seed: int) -> Tensor:
    """Any bits at all, NaN among them; of a boolean only the two that it has."""
    bits = torch.randint(0, 256, (*shape, dtype.itemsize), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return (bits[..., 0] % 2).bool() if dtype == torch.bool else bits.view(dtype).reshape(shape)


TENSORS = st.dictionaries(NAMES, st.builds(drawn, SHAPES, st.sampled_from(list(TYPES)), st.integers(0, 99)), max_size=6)


@settings(max_examples=150, deadline=None)
@given(TENSORS)
def test_the_bytes_are_those_of_the_library(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor]) -> None:
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    entry = write_tensor_file(path, tensors)
    content = path.read_bytes()
    assert content == save(tensors)
    assert entry == {"path": "model.safetensors", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].shape == tensor.shape and read[name].dtype == tensor.dtype
        assert bytes(as_bytes(read[name])) == bytes(as_bytes(tensor))


def test_a_tensor_longer_than_a_block_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "BLOCK", 100)
    tensors = {"a": torch.arange(251.0), "b": torch.arange(25.0), "c": torch.arange(1.0)}
    entry = write_tensor_file(tmp_path / "file", tensors)
    assert (tmp_path / "file").read_bytes() == save(tensors)
    assert entry["sha256"] == hashlib.sha256(save(tensors)).hexdigest()


def test_a_view_is_written_row_by_row(tmp_path: Path) -> None:
    columns = torch.arange(12.0).view(3, 4).t()
    write_tensor_file(tmp_path / "file", {"a": columns, "b": columns[1:3, ::2]})
    read = load_file(tmp_path / "file")
    assert torch.equal(read["a"], columns) and torch.equal(read["b"], columns[1:3, ::2])


def test_what_no_checkpoint_holds_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"twisted is of type torch\.complex64; a checkpoint holds BOOL, .* I64"):
        write_tensor_file(tmp_path / "file", {"good": torch.zeros(1), "twisted": torch.zeros(1, dtype=torch.complex64)})
    assert not (tmp_path / "file").exists()


def test_no_file_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("another's")
    with pytest.raises(FileExistsError):
        write_tensor_file(tmp_path / "file", {"a": torch.zeros(1)})
    assert (tmp_path / "file").read_text() == "another's"
