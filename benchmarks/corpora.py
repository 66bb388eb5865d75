"""The text that the benchmarks run on: a corpus of one's own or this machine's Python, as it is and grown to a multiple of its size."""

from __future__ import annotations

import functools
import json
import os
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from headrace.ingest.python_installation import collect

# (text, number of the copy) -> the text of that copy; number 0 is the text itself
Change = Callable[[str, int], str]


def corpus(folder: Path) -> list[dict[str, Any]]:
    """Sources of the run that is measured: HEADRACE_CORPUS, a folder of *.jsonl.zst, or else the texts of this machine's own Python."""
    place = os.environ.get("HEADRACE_CORPUS")
    kinds = {
        "web": "web",
        "conversation": "conversation",
        "books": "book",
        "multilingual": "multilingual",
        "scientific": "science",
        "code": "code",
    }
    if place:
        return [{"name": name, "kind": kind, "path": f"{place}/{name}-*.jsonl.zst"} for name, kind in kinds.items()]
    collect(folder / "raw")
    found = sorted((folder / "raw").glob("*.jsonl.zst"))
    named = [path.name.split(".")[0] for path in found]
    return [
        {"name": name, "kind": "code" if name == "code" else "prose", "path": str(path)} for name, path in zip(named, found, strict=True)
    ]


def planted(copies: int = 1) -> list[tuple[str, str, float]]:
    """Duplicates known to be in the corpus, as (id, id of its original, Jaccard similarity of their 5-word shingles; 1 = exact).

    From truth.jsonl.zst in HEADRACE_CORPUS; none where that is not there. With `copies`, those of a corpus grown with `ciphered`.
    """
    path = Path(os.environ.get("HEADRACE_CORPUS", "")) / "truth.jsonl.zst"
    if not path.is_file():
        return []
    known = [json.loads(line) for line in zstandard.decompress(path.read_bytes(), 1 << 30).splitlines()]
    pairs = [(each["id"], each["of"], each.get("word5_jaccard", 1.0)) for each in known if each["kind"].endswith("_duplicate")]
    if copies == 1:
        return pairs
    return [(f"{number}-{this}", f"{number}-{other}", similarity) for number in range(copies) for this, other, similarity in pairs]


def reordered(text: str, number: int) -> str:
    """The words of every line in another order: new text to a reader of words, at the same cost to a reader of bytes."""
    if number == 0:
        return text
    draw = random.Random(f"{number}/{text[:80]}")
    return "\n".join(" ".join(draw.sample(words, len(words))) for words in (line.split(" ") for line in text.split("\n")))


def ciphered(text: str, number: int) -> str:
    """Every letter and digit moved on by `number` places in its own alphabet: words of different numbers differ, those of one number
    repeat as they did. So each copy of a corpus holds the same duplicates, with the same similarities, and none of another copy's."""
    return text.translate(_cipher(number)) if number else text


@functools.cache
def _cipher(number: int) -> dict[int, int]:
    alphabets: dict[tuple[str, int, int], list[int]] = {}
    small: dict[int, int] = {}
    for code in range(0x30000):
        char = chr(code)
        # Letters whose case does not go there and back again (sharp s, final sigma) stay, so that no two words become equal.
        if char.isalnum() and char.lower() == char and char.upper().lower() == char and char not in "σς":
            place = unicodedata.category(char), len(char.encode()), code >> 8
            alphabets.setdefault(place, []).append(code)
    for letters in alphabets.values():
        size = len(letters)
        small |= {code: letters[(index + number) % size] for index, code in enumerate(letters)}
    large = {ord(upper): chr(to).upper() for code, to in small.items() if len(upper := chr(code).upper()) == 1 and ord(upper) != code}
    return small | {code: ord(to) for code, to in large.items() if len(to) == 1}


def grown(folder: Path, sources: list[dict[str, Any]], times: int, change: Change = reordered) -> list[dict[str, Any]]:
    """Sources of `times` the text: beside each file its copies, each changed so that it repeats nothing of the others."""
    made = []
    for source in sources:
        place = folder / "raw" / source["name"]
        place.mkdir(parents=True)
        for path in sorted(Path(source["path"]).parent.glob(Path(source["path"]).name)):
            records = [json.loads(line) for line in zstandard.decompress(path.read_bytes(), 1 << 30).splitlines()]
            for number in range(times):
                lines = [json.dumps({"id": f"{number}-{record['id']}", "text": change(record["text"], number)}) for record in records]
                (place / f"{number:02d}-{path.name}").write_bytes(zstandard.compress("\n".join(lines).encode()))
        made.append({**source, "path": str(place)})
    return made
