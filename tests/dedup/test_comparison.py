from __future__ import annotations

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from headrace import cli
from headrace.config import ConfigError
from headrace.dedup.comparison import compare, numbers, print_comparison, side, text_parts
from headrace.ingest import streams

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Zażółć gęślą jaźń, rzekł ktoś do kogoś.", "Another text."]


def write(folder, texts):
    """The same documents in every format: name -> path."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    (folder / "texts").mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / "texts" / f"{number}.txt").write_text(text)
    (folder / "d.jsonl").write_bytes(lines)
    (folder / "d.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "d.jsonl.zst").write_bytes(zstandard.compress(lines))
    pq.write_table(pa.table({"text": texts}), folder / "d.parquet")
    return [str(folder / name) for name in ("d.jsonl", "d.jsonl.gz", "d.jsonl.zst", "d.parquet", "texts", "texts/*.txt")]


def compared(a, b, as_text=False, ns=(1, 2), threshold=0.75):
    return compare(side(a, "A", as_text), side(b, "B", as_text), ns, threshold)


def test_every_format_holds_the_same_corpus(tmp_path):
    paths = write(tmp_path, TEXTS)
    for path in paths:
        found = compared(paths[0], path)
        assert [row["jaccard"] for row in found["ngrams"]] == [1.0, 1.0]
        assert found["documents"] == {"a": 3, "b": 3, "threshold": 0.75, "exact": 3, "near": 0, "containment_tenths": [0] * 10 + [3]}
        assert found["left_out"] == {"a": {}, "b": {}}


def test_a_text_file_is_one_text_and_no_corpus(tmp_path):
    write(tmp_path, TEXTS)
    found = compared(str(tmp_path / "texts" / "0.txt"), TEXTS[0].upper())
    assert found["documents"] is None
    assert [row["of_longer"] for row in found["ngrams"]] == [1.0, 1.0]
    beside_a_corpus = compared(str(tmp_path / "d.jsonl"), str(tmp_path / "texts" / "0.txt"))
    assert beside_a_corpus["documents"]["exact"] == beside_a_corpus["documents"]["b"] == 1


def test_text_forces_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "word").write_text("three other words")
    assert compared("word", "word")["ngrams"][0]["a"] == 3
    assert compared("word", "word", as_text=True)["ngrams"][0]["a"] == 1
    assert compared("no/such.txt", "x", as_text=True)["ngrams"][0]["a"] == 3


@pytest.mark.parametrize("text", ["Is it? Or [is] it * not", "read a.txt first", "and/or", "x" * 5000, "~", "", "nul\0byte"])
def test_what_is_no_path_is_a_text(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert side(text, "A", False).text == text


@pytest.mark.parametrize("path", ["no/such.jsonl", "no such/file.txt", "/gone/d.jsonl.zst", "d.parquet", "texts/*.txt.gz", "a.zst"])
def test_a_file_that_is_not_there_is_not_taken_for_a_text(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"^B = {re.escape(repr(path))}: no such file; .*--text"):
        side(path, "B", False)


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^A = '.*': no file to read: the folder holds no file\.$"):
        side(str(tmp_path), "A", False)


def test_an_argument_that_is_no_utf_8_is_refused():
    with pytest.raises(ConfigError, match=r"^A: the argument is not UTF-8"):
        side("\udcff", "A", True)


def test_what_cannot_be_read_is_counted(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "a b c"}\n{"no": 1}\nnot json\n')
    found = compared(str(tmp_path / "d.jsonl"), "a b c")
    assert found["left_out"] == {"a": {"missing_text": 1, "bad_json": 1}, "b": {}}
    assert found["documents"]["exact"] == 1
    (tmp_path / "none.jsonl").write_text("not json\n")
    with pytest.raises(ConfigError, match=r"^B: no document in .*none.jsonl: 1 bad_json"):
        compared("a b c", str(tmp_path / "none.jsonl"))


@given(st.text(st.sampled_from("aΣΑ\u0301 \nżİ🙂."), max_size=60), st.integers(1, 7))
def test_parts_of_a_long_text_have_its_words(tmp_path_factory, text, chunk):
    path = tmp_path_factory.mktemp("parts") / "long.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        parts = list(text_parts(str(path)))
    assert "".join(parts) == text
    assert [word for part in parts for word in re.findall(r"\w+", part.lower())] == re.findall(r"\w+", text.lower())


@pytest.mark.parametrize(
    "name, content, why", [("a.txt", b"caf\xe9 noir", "no UTF-8"), ("a.txt.gz", b"no gzip", "named gzip"), ("a.txt", b"\xc3", "no UTF-8")]
)
def test_a_text_file_that_cannot_be_read_is_refused(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{name}: {why}"):
        compared(str(tmp_path / name), "text")


@pytest.mark.parametrize("given", ["", "0", "1,", "1,x", "1,-2", "1.5"])
def test_numbers_that_mean_nothing_are_refused(given):
    with pytest.raises(ConfigError, match=r"^--n .*: an n-gram has one word or more"):
        numbers(given)


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_a_threshold_that_means_nothing_is_refused(threshold):
    with pytest.raises(ConfigError, match=r"^--threshold .*: a Jaccard similarity above 0, at most 1"):
        compared("a", "b", threshold=threshold)


def test_the_verb(tmp_path, capsys):
    ran = CliRunner().invoke(cli.app, ["overlap", "Uwielbiam pić kawę", "Uwielbiam pić kawę Starbucks", "--json"])
    assert ran.exit_code == 0
    rows = json.loads(ran.stdout)["ngrams"]
    assert [row["n"] for row in rows] == [1, 2, 3, 5]
    assert [row["jaccard"] for row in rows] == [3 / 4, 2 / 3, 1 / 2, None]
    assert rows[0]["of_both"] == 3 / 7
    assert cli.guarded(lambda: cli.app(["overlap", "gone/a.txt", "b", "--n", "1"])) == 2
    assert capsys.readouterr().err == "headrace: A = 'gone/a.txt': no such file; correct the path, or say --text if it is a text.\n"


def test_the_tables(tmp_path):
    paths = write(tmp_path, [*TEXTS, " ".join(f"w{number}" for number in range(40))])
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [TEXTS[0], " ".join(f"w{n}" for n in range(36))]) + "?"
    )
    console = Console(record=True, width=100)
    print_comparison(compared(paths[0], str(tmp_path / "b.jsonl"), ns=(1, 9)), console)
    shown = " ".join(console.export_text().split())
    for cell in ("n = 9", "containment of B in A │ 100.0% │ 100.0%", "of them exact copies │ 1", "near (Jaccard 0.75 or more) │ 1"):
        assert cell in shown
    assert "whole in its counterpart │ 2" in shown
    assert "left out of B: 1 bad_json" in shown
    console = Console(record=True, width=100)
    print_comparison(compared("", "word", ns=(1,)), console)
    assert "containment of A in B │ -" in " ".join(console.export_text().split())
