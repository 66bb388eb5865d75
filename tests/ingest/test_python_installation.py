import importlib.metadata
import json
import shutil

import pytest
import zstandard

from headrace.ingest.python_installation import SHARES, collect

KINDS = {"code", "docstrings", "descriptions", "licences"}


def rows(path):
    return [json.loads(line) for line in zstandard.ZstdDecompressor().decompress(path.read_bytes()).decode().split("\n")[:-1]]


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collected")
    return folder, collect(folder, 200_000)


def test_a_small_collection_keeps_to_its_shares(collected):
    folder, counts = collected
    assert counts.keys() == KINDS == SHARES.keys()
    for kind, count in counts.items():
        found = rows(folder / f"{kind}.jsonl.zst")
        size = sum(len(row["text"].encode()) for row in found)
        assert count == {"documents": len(found), "bytes": size}
        assert 0 < size <= 200_000 * SHARES[kind] / 12
        assert [row["id"] for row in found] == sorted({row["id"] for row in found})
    code = rows(folder / "code.jsonl.zst")
    assert all(row["id"].endswith(".py") and not row["id"].startswith("/") for row in code)
    assert all("/tests/" not in row["id"] for row in code)


def test_what_is_there_is_kept_and_what_is_damaged_made_again_with_equal_bytes(collected, tmp_path):
    folder, counts = collected
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    written = {path.name: path.stat().st_mtime_ns for path in again.iterdir()}
    assert collect(again, 200_000) == counts
    assert {path.name: path.stat().st_mtime_ns for path in again.iterdir()} == written
    (again / "code.jsonl.zst").write_bytes((folder / "code.jsonl.zst").read_bytes()[:-1])
    assert collect(again, 200_000) == counts
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_docstrings_are_prose_and_descriptions_are_the_packages_own(collected):
    folder, _ = collected
    docstrings = rows(folder / "docstrings.jsonl.zst")
    assert all(row["id"].endswith(".py#docstrings") and "import " not in row["text"][:20] for row in docstrings)
    names = {f"{each.metadata['Name'].lower()}-{each.version}/description" for each in importlib.metadata.distributions()}
    assert {row["id"] for row in rows(folder / "descriptions.jsonl.zst")} <= names
    assert any("ermission is hereby granted" in row["text"] for row in rows(folder / "licences.jsonl.zst"))
