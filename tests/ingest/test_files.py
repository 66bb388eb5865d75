import os
import socket

import pytest
import xxhash

from headrace.config import ConfigError
from headrace.ingest import files as module
from headrace.ingest.files import digest_of, digested, find_files
from headrace.ingest.source import Source


def source(path, **fields):
    return Source(name="web", kind="web", path=[str(p) for p in path] if isinstance(path, list) else str(path), **fields)


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def relative(path, **fields):
    return [file.relative for file in find_files(source(path, **fields))]


def test_files_are_ordered_by_their_path_below_the_pattern_s_folder(tmp_path):
    make(tmp_path, "b/2.jsonl", "b/10.jsonl", "a/z.jsonl", "a.jsonl", "a/.hidden.jsonl", ".git/x.jsonl", "note.txt")
    assert relative(tmp_path / "*.jsonl") == ["a.jsonl"]
    assert relative(tmp_path / "*" / "*.jsonl") == ["a/z.jsonl", "b/10.jsonl", "b/2.jsonl"]
    assert relative(tmp_path / "**" / "*.jsonl") == ["a.jsonl", "a/z.jsonl", "b/10.jsonl", "b/2.jsonl"]
    assert relative(tmp_path) == ["a.jsonl", "a/z.jsonl", "b/10.jsonl", "b/2.jsonl", "note.txt"]
    assert relative(tmp_path / "b" / "2.jsonl") == ["2.jsonl"]
    assert relative(tmp_path / "b" / "[0-9].jsonl") == ["2.jsonl"]


def test_several_patterns_share_a_folder_and_a_file_is_read_once(tmp_path):
    make(tmp_path, "a/x.jsonl", "b/x.jsonl")
    assert relative([tmp_path / "b", tmp_path / "a", tmp_path / "a" / "*.jsonl"]) == ["a/x.jsonl", "b/x.jsonl"]


def test_a_name_that_holds_wildcards_is_found(tmp_path):
    make(tmp_path, "part[1]*.jsonl", "part1x.jsonl")
    assert relative(tmp_path / "part[1]*.jsonl") == ["part[1]*.jsonl"]


def test_spaces_and_other_scripts_in_names(tmp_path):
    make(tmp_path, "mój plik ①.jsonl")
    assert relative(tmp_path / "mój *.jsonl") == ["mój plik ①.jsonl"]


def test_the_format_is_told_by_the_extension(tmp_path):
    formats = {
        "a.jsonl": "jsonl",
        "a.jsonl.zst": "jsonl",
        "a.json.GZ": "jsonl",
        "a.ndjson": "jsonl",
        "a.parquet": "parquet",
        "a.warc.gz": "warc",
        "a.warc.wet.gz": "warc",
        "a.warc.lz4": "warc",
        "a.py": "text",
        "a.txt.gz": "text",
        "a": "text",
        "a.unknown": "text",
    }
    make(tmp_path, *formats)
    assert {file.relative: file.format for file in find_files(source(tmp_path))} == formats
    assert {file.format for file in find_files(source(tmp_path, format="lines"))} == {"lines"}


@pytest.mark.parametrize(
    "pattern, why",
    [
        ("absent/*.jsonl", "does not exist"),
        ("data/*.parquet", "holds a.jsonl, b.jsonl, c.jsonl, ..."),
        ("empty", "holds no file"),
        ("empty/*.jsonl", "is empty"),
        ("da*", "folders only"),
    ],
)
def test_a_pattern_that_matches_nothing_says_so(tmp_path, pattern, why):
    make(tmp_path, "data/a.jsonl", "data/b.jsonl", "data/c.jsonl", "data/d.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as error:
        find_files(source([tmp_path / "data", tmp_path / pattern]))
    message = str(error.value)
    assert message.startswith(f"sources.web.path = '{tmp_path / pattern}' matches no file: ")
    assert why in message
    assert "\n" not in message


@pytest.mark.parametrize("address", ["gs://bucket/*", "http://example.org/a.jsonl", "s3a://bucket/x"])
def test_addresses_other_than_s3_are_refused(address):
    with pytest.raises(ConfigError, match=r"input is read from local or mounted folders and from S3 \(s3://bucket/prefix\)") as error:
        find_files(source(address))
    assert str(error.value).startswith(f"sources.web.path = '{address}'")


def test_a_source_lies_in_one_place(tmp_path):
    with pytest.raises(ConfigError, match=r"sources\.web\.path = '/data/\*' is not on S3 as .* a source of its own"):
        find_files(source(["s3://bucket/x", "/data/*"]))


def test_links_are_followed_within_their_folder_and_where_they_are_named(tmp_path):
    make(tmp_path, "data/a.jsonl", "elsewhere/secret.jsonl")
    (tmp_path / "data" / "inside.jsonl").symlink_to("a.jsonl")
    (tmp_path / "data" / "outside.jsonl").symlink_to(tmp_path / "elsewhere" / "secret.jsonl")
    (tmp_path / "data" / "dangling.jsonl").symlink_to("nowhere")
    (tmp_path / "data" / "folder").symlink_to(tmp_path / "elsewhere")
    problems = {file.relative: file.problem for file in find_files(source(tmp_path / "data" / "**"))}
    assert problems["a.jsonl"] is problems["inside.jsonl"] is None
    assert "leads outside" in problems["outside.jsonl"]
    assert "leads outside" in problems["folder/secret.jsonl"]
    assert "No such file" in problems["dangling.jsonl"]
    (named,) = find_files(source(tmp_path / "data" / "outside.jsonl"))
    assert named.problem is None


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    make(tmp_path, "a.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's path may have 108 bytes only
        server.bind("s.jsonl")
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_text("x")
    found = {file.relative: file for file in find_files(source(tmp_path))}
    assert found["s.jsonl"].problem == "not a regular file"
    assert found["caf\\xe9.jsonl"].problem == "its name is not UTF-8"
    assert found["a.jsonl"].problem is None


def test_a_file_that_vanishes_has_a_problem_in_place_of_a_digest(tmp_path):
    make(tmp_path, "a.jsonl")
    (file,) = find_files(source(tmp_path))
    (tmp_path / "a.jsonl").unlink()
    assert digested(file).problem == "FileNotFoundError: No such file or directory"
    assert digested(file).digest == ""


def test_a_small_file_is_digested_whole_and_a_large_one_by_blocks(tmp_path, monkeypatch):
    content = bytes(range(256)) * 40
    (tmp_path / "a").write_bytes(content)
    assert digest_of(str(tmp_path / "a"), len(content)) == xxhash.xxh3_128_hexdigest(content)
    monkeypatch.setattr(module, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(module, "BLOCK", 10)
    expected = xxhash.xxh3_128(len(content).to_bytes(8, "little"))
    for number in range(64):
        start = number * (len(content) - 10) // 63
        expected.update(content[start : start + 10])
    assert digest_of(str(tmp_path / "a"), len(content)) == expected.hexdigest()
