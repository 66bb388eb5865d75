from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace import storage
from headrace.config import ConfigError


def test_a_published_file_is_whole_and_nothing_is_left_aside(tmp_path):
    storage.write_bytes(tmp_path / "a" / "b.json", b"one")
    storage.write_bytes(tmp_path / "a" / "b.json", b"two")
    assert (tmp_path / "a" / "b.json").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "x"
    storage.write_bytes(path, b"old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        storage.write_bytes(path, b"new")
    assert storage.is_full(caught.value)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_a_torn_last_line_is_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    storage.append_line(path, {"step": 1})
    storage.append_line(path, {"step": 2})
    with path.open("ab") as handle:
        handle.write(b'{"step": 3')
    assert [line["step"] for line in storage.read_lines(path)] == [1, 2]


def test_a_tree_is_published_with_its_entries(tmp_path):
    with storage.scratch_folder(tmp_path, "u0") as scratch:
        (scratch / "kind").mkdir()
        (scratch / "kind" / "b").write_bytes(b"22")
        (scratch / "kind" / "a").write_bytes(b"1")
        entries = storage.publish_tree(scratch, tmp_path)
    assert [(entry["path"], entry["bytes"]) for entry in entries] == [("kind/a", 1), ("kind/b", 2)]
    assert entries[0]["sha256"] == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    assert not list(tmp_path.glob(f"{storage.ASIDE}*"))


def test_a_folder_that_cannot_be_written_is_a_configuration_mistake(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"out = .*cannot write there"):
        storage.writable_folder(tmp_path / "file" / "run", "out")


def test_broken_json_names_its_file(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json: not valid JSON"):
        storage.read_json(tmp_path / "x.json")


def test_of_many_who_create_a_file_one_is_told_yes(tmp_path):
    path = tmp_path / "a" / "record.json"
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda number: storage.create(path, str(number).encode()), range(64)))
    assert told.count(True) == 1
    assert path.read_bytes() == str(told.index(True)).encode()
    assert storage.names(tmp_path / "a") == ["record.json"] and storage.names(tmp_path / "b") == []
    storage.remove(path)
    storage.remove(path)
    assert not storage.present(path)
