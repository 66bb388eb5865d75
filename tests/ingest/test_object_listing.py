"""Objects that a source names: as local files are named, without anything being downloaded."""

import json
import os

import pytest

from headrace.config import ConfigError
from headrace.ingest.files import find_files
from headrace.ingest.listing import fingerprint_inputs, plan_units
from headrace.ingest.source import Source
from headrace.storage.object_store import StorageError


def source(path):
    return Source(name="web", kind="web", path=path)


PATTERNS = [
    "",
    "/",
    "/*",
    "/*.jsonl*",
    "/**",
    "/**/*.parquet",
    "/*/w.warc",
    "/d*/**/w.*",
    "/[ab].*",
    "/note ?.txt",
    "/deep/er/*",
    "/plain.jsonl",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_names_on_s3_what_it_names_locally(store, corpus, tmp_path, pattern):
    for hidden in (".hidden.jsonl", ".git/x.jsonl", "deep/.h/x.jsonl", "part[1]*.jsonl"):
        (tmp_path / "raw" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "raw" / hidden).write_text("x")
    store.upload(corpus, "some/raw/")
    store.put("some/raw-not/x.jsonl", b"x")
    store.put("some/raw/", b"")  # markers of folders, as consoles leave them
    store.put("some/raw/deep/", b"")
    local = find_files(source(f"{tmp_path}/raw{pattern}"))
    found = find_files(source(f"s3://corpus/some/raw{pattern}"))
    assert local
    assert [(file.relative, file.bytes, file.format) for file in found] == [(file.relative, file.bytes, file.format) for file in local]
    assert [file.path for file in found] == [file.path.replace(f"{tmp_path}/raw", "s3://corpus/some/raw") for file in local]


def test_a_name_that_holds_wildcards_several_patterns_and_a_whole_bucket(store):
    for key in ("a/x.jsonl", "a/part[1]*.jsonl", "a/part1x.jsonl", "b/x.jsonl", "c", "c/y.jsonl", "//odd"):
        store.put(key, b"x")

    def relative(*paths):
        return [file.relative for file in find_files(source([f"s3://corpus{path}" for path in paths]))]

    assert relative("/a/part[1]*.jsonl") == ["part[1]*.jsonl"]
    assert relative("/a", "/b/*.jsonl", "/a/x.jsonl") == ["a/part1x.jsonl", "a/part[1]*.jsonl", "a/x.jsonl", "b/x.jsonl"]
    assert relative("") == ["//odd", "a/part1x.jsonl", "a/part[1]*.jsonl", "a/x.jsonl", "b/x.jsonl", "c", "c/y.jsonl"]
    assert relative("/c") == ["c"]  # an object and a folder of one name
    assert relative("/c/") == ["y.jsonl"]


def test_a_listing_goes_on_past_a_page_and_not_below_its_folder(store):
    for number in range(10):
        store.put(f"many/{number}.jsonl", b"x")
        store.put(f"many/below/{number}.jsonl", b"x")
    store.forget()
    store.page = 3
    assert len(find_files(source("s3://corpus/many/*.jsonl"))) == 10
    assert len(store.asked) == 2 + 4  # the object and the folder of that very name; 10 keys and a folder
    assert len(find_files(source("s3://corpus/many"))) == 20


def test_the_fingerprint_follows_contents_and_nothing_is_downloaded_for_it(store):
    store.put("raw/a.jsonl", b"one")
    store.put("raw/b.jsonl", b"two")
    store.forget()
    before = fingerprint_inputs([source("s3://corpus/raw")])
    assert before[0] == ["web", "a.jsonl", 3, "etag:f97c5d29941bfb1b2fdab0874906ab82"]  # of one PUT it is the MD5
    assert {span for _, _, span in store.asked} == {None}
    store.put("raw/a.jsonl", b"one")
    assert fingerprint_inputs([source("s3://corpus/raw")]) == before
    store.put("raw/a.jsonl", b"One")
    after = fingerprint_inputs([source("s3://corpus/raw")])
    assert [entry[1] for entry, old in zip(after, before, strict=True) if entry != old] == ["a.jsonl"]


def test_units_are_planned_for_the_objects_that_the_stage_is_named_for(store):
    store.put("raw/a.jsonl", b"one")
    sources = [source("s3://corpus/raw")]
    inputs = fingerprint_inputs(sources)
    assert plan_units(sources, inputs=inputs) == plan_units(sources)
    store.put("raw/b.jsonl", b"two")
    with pytest.raises(StorageError, match=r"sources\.web\.path: b\.jsonl was written or removed"):
        plan_units(sources, inputs=inputs)
    store.delete("raw/b.jsonl")
    store.put("raw/a.jsonl", b"One")
    with pytest.raises(StorageError, match=r"a\.jsonl was written"):
        plan_units(sources, inputs=inputs)


def test_a_unit_holds_plain_values_and_no_credentials(store):
    store.put("raw/a.jsonl", b"one")
    (unit,) = plan_units([source("s3://corpus/raw")])
    assert json.loads(json.dumps(unit)) == unit
    assert unit["pieces"][0]["path"] == "s3://corpus/raw/a.jsonl"
    for secret in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert os.environ[secret] not in json.dumps(unit)


def test_what_matches_nothing_says_what_is_there(store):
    for key in ("data/a.jsonl", "data/b.jsonl", "data/c.jsonl", "data/below/d.jsonl"):
        store.put(key, b"x")
    for path, why in {
        "data/*.parquet": "s3://corpus/data/ holds a.jsonl, b.jsonl, below/, ...",
        "data/x.jsonl": "s3://corpus/data/ holds a.jsonl, b.jsonl, below/, ...",
        "dat?/*.parquet": "s3://corpus/ holds data/",
        "none/": "s3://corpus/none/ holds no object",
    }.items():
        with pytest.raises(ConfigError) as error:
            find_files(source(["s3://corpus/data", f"s3://corpus/{path}"]))
        assert str(error.value).startswith(f"sources.web.path = 's3://corpus/{path}' matches no object: {why}. Correct it")


@pytest.mark.parametrize(
    "address", ["s3://", "s3:///x", "s3://no bucket/x", "s3://AKIDEXAMPLE:wJalrXUtnFEMI@bucket/x", "s3://AKIDEXAMPLE:wJalr/XUtn@bucket/x"]
)
def test_an_address_without_a_bucket_is_refused_and_not_repeated(address):
    with pytest.raises(ConfigError, match=r"^sources\.web\.path: write s3://bucket/prefix") as error:
        find_files(source(address))
    assert "AKIDEXAMPLE" not in str(error.value)
