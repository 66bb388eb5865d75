"""Passages that were planted in real text, whose places are known, under tokenizers trained on it and on other text."""

from __future__ import annotations

import json

import pytest
import zstandard

from headrace.dedup.levels import Dedup, deduplicate
from headrace.dedup.token_level import TokenDedup
from headrace.tokens.tokenizer import train_bpe


def read_lines(path):
    with zstandard.open(path, "rt", encoding="utf8") as lines:
        return [json.loads(line) for line in lines]


def shared_part(span, spans):
    """What of a span stands in another document, too: all of it, or the longest other span that it begins with."""
    others = [other for other in spans if span.startswith(other)]
    others.remove(span)
    return max(others, key=len, default=None)


@pytest.mark.parametrize("trained_on, below", [("dedup/shared_spans.jsonl.zst", 60), ("corpus/web-00.jsonl.zst", 20)])
def test_planted_spans_of_fifty_tokens_are_found_and_shorter_ones_left_alone(tmp_path, shared, documents_file, rows_of, trained_on, below):
    texts = {record["id"]: record["text"] for record in read_lines(shared / "data" / "dedup" / "shared_spans.jsonl.zst")}
    truth = read_lines(shared / "data" / "dedup" / "shared_spans.truth.jsonl.zst")
    tokenizer = train_bpe((record["text"] for record in read_lines(shared / "data" / trained_on)), 8192)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    unit = documents_file(tmp_path, 0, list(texts.values()))
    names = {f"r0-{row}": name for row, name in enumerate(texts)}
    gone = {}
    for keep in ("none", "first"):
        config = Dedup(document=None, token=TokenDedup(keep=keep, min_words=0))
        deduplicate([unit], config, tmp_path / keep, "local", tmp_path / "tokenizer.json")
        gone[keep] = {name: set() for name in texts}
        for row in rows_of(tmp_path / keep, "removed"):
            name = names[row["id"]]
            gone[keep][name].update(range(row["start"], row["end"]))
            cut = texts[name][row["start"] : row["end"]]
            assert sum(other.count(cut) for other in texts.values()) > 1  # whatever is cut stands elsewhere, too
    spans = {span["id"]: texts[span["id"]][span["start"] : span["end"]] for span in truth}
    found, left, firsts, seen = 0, 0, 0, set()
    for span in truth:
        part = shared_part(spans[span["id"]], spans.values())
        if part is None:  # a beginning of others, which are longer
            part = spans[span["id"]]
            assert any(other.startswith(part) and other != part for other in spans.values())
        places = set(range(span["start"], span["start"] + len(part)))
        if len(tokenizer.encode(part).ids) >= 50:
            assert places <= gone["none"][span["id"]]
            if not any(part.startswith(other) for other in seen):
                assert not places & gone["first"][span["id"]]
                firsts += 1
            elif part in seen:
                assert places <= gone["first"][span["id"]]
            found += 1
        else:
            assert not places & gone["none"][span["id"]]
            left += 1
        seen.add(part)
    assert found + left == 180
    assert left >= below
    assert firsts >= 30
