"""Evaluation sets as sequences of words: what of an item is looked for in the training text."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from headrace.config import ConfigError
from headrace.decontaminate.presets import Benchmark
from headrace.ingest.read_jsonl import file_lines
from headrace.ingest.record import Rejected
from headrace.text.folding import folded_words

IDS = ("id", "task_id", "question_id", "ID", "qid", "uid", "idx", "ind")  # the first of them that a record has names the item

Slot = list[str]  # texts that may each come next: one, or a question's answers


@dataclass(frozen=True)
class Item:
    """One question of an evaluation set.

    text: its texts, a line each. words: those of all its texts, one after the other. further: pairs of texts that may stand side by
    side though another alternative comes between them here, so much of either as an n-gram can reach.
    """

    benchmark: str
    id: str
    row: int  # line of the file that holds a record, from 0
    text: str
    words: list[str]
    further: list[list[str]]


def read_benchmark(benchmark: Benchmark, n: int) -> Iterator[Item]:
    """The items of an evaluation set, in its order.

    Args:
        n: words of an n-gram.

    Raises:
        ConfigError: a line that is no JSON object, a field that is not there, a file without items. Nothing is passed over: an item
            that was not read is an item that is not protected.
    """
    records = list(_records(benchmark))
    if not records:
        raise ConfigError(f"{_where(benchmark)}: no items in it.")
    names = [_own_id(record) for _, record in records]
    used = Counter(names)
    for row, ((line, record), name) in enumerate(zip(records, names, strict=True)):
        slots = _all_strings(record) if benchmark.fields is None else _named(record, benchmark, line)
        unique = name is not None and used[name] == 1
        yield make_item(benchmark.name, name if name is not None and unique else f"{benchmark.name}#{row}", row, slots, n)


def make_item(benchmark: str, name: str, row: int, slots: Sequence[Slot], n: int) -> Item:
    """An item out of its texts; texts without a word are left out."""
    found = [[(text, words) for text in slot if (words := folded_words(text))] for slot in slots]
    found = [slot for slot in found if slot]
    further = []
    for before, behind in itertools.pairwise(found):
        for first, (_, left) in enumerate(before):
            for second, (_, right) in enumerate(behind):
                if (first, second) != (len(before) - 1, 0):  # those two stand side by side already
                    further.append([*left[max(0, len(left) - n + 1) :], *right[: n - 1]])
    texts = [pair for slot in found for pair in slot]
    words = [sys.intern(word) for _, of_text in texts for word in of_text]  # sets of items repeat their words
    return Item(benchmark, name, row, "\n".join(text for text, _ in texts), words, [pair for pair in further if len(pair) >= n])


def _records(benchmark: Benchmark) -> Iterator[tuple[int, dict[str, Any]]]:
    """(byte offset of the line in the decompressed file, the object in it)."""
    for line in file_lines(benchmark.path):
        if isinstance(line, Rejected):
            shown = line.first_bytes.decode("utf-8", "replace")
            raise ConfigError(f"{_where(benchmark)}: byte {line.offset}: {line.reason} ({shown[:80]!r}); every item has to be readable.")
        assert line.content is not None
        try:
            record = orjson.loads(line.content)
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"{_where(benchmark)}: byte {line.offset}: no JSON ({error}); every item has to be readable.") from None
        if not isinstance(record, dict):
            raise ConfigError(f"{_where(benchmark)}: byte {line.offset}: {type(record).__name__}, expected an object a line.")
        yield line.offset, record


def _where(benchmark: Benchmark) -> str:
    return f"decontaminate.benchmarks.{benchmark.name}: {benchmark.path}"


def _own_id(record: dict[str, Any]) -> str | None:
    for key in IDS:
        value = record.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    return None


def _all_strings(record: dict[str, Any]) -> list[Slot]:
    """Every string of a record in its order; a list is one slot, an object gives its values."""
    slots: list[Slot] = []
    own = next((key for key in IDS if key in record), None)
    for key, value in record.items():
        if key == own:
            continue
        if isinstance(value, str):
            if len(folded_words(value)) > 1:
                slots.append([value])
        elif isinstance(value, list):
            slots.append(list(_strings(value)))
        elif isinstance(value, dict):
            slots += _all_strings(value)
    return slots


def _strings(value: Any) -> Iterator[str]:
    """All strings in a value, numbers and nulls left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _named(record: dict[str, Any], benchmark: Benchmark, line: int) -> list[Slot]:
    """The slots that the configuration names; a number counts as it is written, null as no text."""
    assert benchmark.fields is not None
    slots = []
    for entry in benchmark.fields:
        slot: Slot = []
        for field in (entry,) if isinstance(entry, str) else entry:
            value: Any = record
            for key in field.split("."):
                if not isinstance(value, dict) or key not in value:
                    there = ", ".join(value) if isinstance(value, dict) else type(value).__name__
                    raise ConfigError(f"{_where(benchmark)}: byte {line}: no field {field!r}; there is: {there}.")
                value = value[key]
            slot += [str(value)] if isinstance(value, int | float) else list(_strings(value))
        slots.append(slot)
    return slots
