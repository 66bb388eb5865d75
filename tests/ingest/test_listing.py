import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from headrace.config import ConfigError
from headrace.ingest.listing import fingerprint_inputs, list_files, plan_units, unit_size
from headrace.ingest.source import Source


def source(name, path, **fields):
    return Source(name=name, kind="web", path=str(path), **fields)


def corpus(folder):
    """Twelve small files, one long plain one, one compressed, one of ten row groups."""
    (folder / "small").mkdir(parents=True)
    (folder / "large").mkdir()
    for number in range(12):
        (folder / "small" / f"{number:02d}.jsonl").write_text("x" * 1000)
    (folder / "large" / "plain.jsonl").write_text("y" * 10_000)
    (folder / "large" / "packed.jsonl.gz").write_bytes(b"\x1f\x8b" + b"z" * 9_998)
    table = pa.table({"text": ["word " * 200] * 10, "n": range(10)})
    pq.write_table(
        table, folder / "large" / "table.parquet", row_group_size=1, use_dictionary=False, compression="none", write_statistics=False
    )
    return [source("small", folder / "small"), source("large", folder / "large")]


def shape(units):
    return [[(piece["relative"], piece["start"], piece["stop"]) for piece in unit["pieces"]] for unit in units]


def test_small_files_are_grouped_and_large_ones_cut(tmp_path):
    units = plan_units(corpus(tmp_path), 4000)
    assert [unit["id"] for unit in units] == [f"u{rank:05d}" for rank in range(len(units))]
    assert [unit["rank"] for unit in units] == list(range(len(units)))
    large = [unit for unit in units if unit["source"] == "large"]
    assert units[: len(large)] == large  # by the sources' names
    assert shape(large)[:4] == [
        [("packed.jsonl.gz", 0, None)],
        [("plain.jsonl", 0, 3333)],
        [("plain.jsonl", 3333, 6666)],
        [("plain.jsonl", 6666, 10_000)],
    ]
    tables = [piece for unit in shape(large)[4:] for piece in unit]
    assert [start for _, start, _ in tables] == [0, 3, 6, 9]  # row groups, three of about a kilobyte a unit
    assert [stop for _, _, stop in tables] == [3, 6, 9, 10]
    assert shape(units[len(large) :]) == [[(f"{number:02d}.jsonl", 0, None) for number in range(start, start + 4)] for start in (0, 4, 8)]


def test_a_unit_holds_plain_values_of_one_source(tmp_path):
    units = plan_units(corpus(tmp_path), 4000)
    assert json.loads(json.dumps(units)) == units
    assert units[0].keys() == {"id", "source", "kind", "rank", "text_field", "pieces"}
    assert units[0]["pieces"][0] == {
        "path": str(tmp_path / "large" / "packed.jsonl.gz"),
        "relative": "packed.jsonl.gz",
        "format": "jsonl",
        "start": 0,
        "stop": None,
        "problem": None,
    }


def test_units_depend_on_names_and_sizes_alone(tmp_path):
    first = corpus(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    second = [source(one.name, str(one.path).replace("/one/", "/two/")) for one in reversed(first)]
    units, moved = plan_units(first, 4000), plan_units(second, 4000)
    assert shape(units) == shape(moved)
    assert [(unit["id"], unit["source"]) for unit in units] == [(unit["id"], unit["source"]) for unit in moved]
    assert fingerprint_inputs(first) == fingerprint_inputs(second)


def test_by_default_there_are_eight_units_of_a_small_input_and_sixteen_of_a_larger_one(tmp_path):
    assert len(plan_units([source("a", write(tmp_path / "a.jsonl", 1_500_000))])) == 2
    assert len(plan_units([source("a", write(tmp_path / "b.jsonl", 40_000_000))])) == 8
    assert unit_size(255_999_999) == 31_999_999
    assert unit_size(256_000_000) == 16_000_000
    assert unit_size(10**12) == 128_000_000


def write(path, size):
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_what_cannot_be_cut_or_read_is_a_piece_all_the_same(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1" + b"x" * 5000)
    (tmp_path / "gone.jsonl").symlink_to("nowhere")
    (tmp_path / "empty.jsonl").touch()
    pieces = {piece["relative"]: piece for unit in plan_units([source("a", tmp_path)], 1000) for piece in unit["pieces"]}
    assert pieces.keys() == {"broken.parquet", "empty.jsonl", "gone.jsonl"}
    assert pieces["broken.parquet"]["stop"] is None
    assert "No such file" in pieces["gone.jsonl"]["problem"]


def test_the_fingerprint_follows_contents_names_and_sources(tmp_path):
    sources = corpus(tmp_path)
    before = fingerprint_inputs(sources)
    assert before[0] == ["large", "packed.jsonl.gz", 10_000, xxhash.xxh3_128_hexdigest(b"\x1f\x8b" + b"z" * 9_998)]
    assert [entry[:2] for entry in before[3:6]] == [["small", "00.jsonl"], ["small", "01.jsonl"], ["small", "02.jsonl"]]
    (tmp_path / "small" / "05.jsonl").write_text("x" * 999 + "y")
    after = fingerprint_inputs(sources)
    assert [one[1] for one, other in zip(before, after, strict=True) if one != other] == ["05.jsonl"]
    assert [file.digest for file in list_files(sources[0])] == [entry[3] for entry in after[3:]]


def test_two_sources_of_one_name_are_refused(tmp_path):
    corpus(tmp_path)
    with pytest.raises(ConfigError, match="two are named 'a'"):
        plan_units([source("a", tmp_path / "small"), source("a", tmp_path / "large")])
