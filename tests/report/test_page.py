import json
import re
from html.parser import HTMLParser

import pytest

from headrace.report import write_report

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>"
VOID = {"meta", "line", "polyline", "polygon", "br", "wbr"}


class Page(HTMLParser):
    """The tags and the text of a page; every tag must be closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self._open = [], [], "", []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(path):
    write_report(path)
    return Page((path / "report.html").read_text())


def stages_of_life(folder):
    yield "empty"
    folder.data()
    yield "data"
    folder.trained(steps=1)
    yield "one step"
    folder.checkpoint(10)
    yield "unscored"
    folder.checkpoint(20, status="failed")
    yield "failed score"
    folder.whole()
    yield "whole"


def test_the_page_is_whole_and_needs_no_network_at_every_point_of_a_run_s_life(folder):
    for life in stages_of_life(folder):
        found = page(folder.path)
        text = (folder.path / "report.html").read_text()
        assert not {"script", "link", "img", "iframe", "object"} & set(found.tags), life
        assert not re.search(r"https?://|url\(|@import", text), life
        assert not [name for name, _ in found.attributes if name in {"src", "href", "onclick", "onload", "onerror"}], life


def test_parts_that_are_missing_say_so(folder):
    text = page(folder.path).text
    for sentence in ("No data stage has finished yet.", "Not trained yet.", "No checkpoint yet.", "Nothing has been timed yet."):
        assert sentence in text
    folder.data()
    folder.trained()
    folder.checkpoint(10)
    assert "No checkpoint has been scored yet." in page(folder.path).text


def test_a_whole_run_shows_its_numbers(folder):
    text = page(folder.whole()).text
    for shown in (
        "Of 102 documents, 80 were kept.",
        "too_short",
        "1.500 ± 0.010",
        "Kneser-Ney",
        "What is scored.",
        "4.10 k parameters",
        "train:\n  steps: 20",
    ):
        assert shown in text


@pytest.mark.parametrize("where", ["reason", "source", "event", "config", "checkpoint", "baseline", "run"])
def test_hostile_text_from_the_run_is_shown_as_text(folder, where, tmp_path):
    path = folder.whole()
    if where == "reason":
        folder.stage("filters", "bbbb", {"u0": ("books", 40, {HOSTILE: 10})})
    elif where == "source":
        folder.stage("ingest", "aaaa", {"u0": (HOSTILE, 40, {})})
    elif where == "event":
        folder.event(40, "train", "failed", message=HOSTILE)
        folder.event(41, HOSTILE, "finished", seconds=1.0)
    elif where == "config":
        (path / "config.yaml").write_text(f"out: {HOSTILE}\n")
    elif where == "checkpoint":
        folder.json("eval/step-00000020/fast.json", {"status": "failed", "reason": HOSTILE})
    elif where == "baseline":
        found = json.loads((path / "eval/baselines.json").read_text())
        found["baselines"][0] |= {"name": HOSTILE, "smoothing": HOSTILE}
        folder.json("eval/baselines.json", found)
    else:
        path = path.rename(tmp_path / HOSTILE.replace("/", ""))
    found = page(path)
    assert not {"script", "img"} & set(found.tags)
    assert "<script>alert(1)" in found.text


def test_the_json_holds_the_report_and_its_summary(folder):
    path = folder.whole()
    written = write_report(path)
    assert json.loads((path / "report.json").read_text()) == written
    assert ["documents in", "102"] in written["summary"]


def test_equal_folders_give_equal_files(folder):
    path = folder.whole()
    write_report(path)
    first = [(path / name).read_bytes() for name in ("report.json", "report.html")]
    write_report(path)
    assert [(path / name).read_bytes() for name in ("report.json", "report.html")] == first
