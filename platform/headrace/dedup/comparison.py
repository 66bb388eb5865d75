"""`headrace overlap A B`: what the two arguments stand for, their overlap, and its table."""

from __future__ import annotations

import codecs
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from headrace.config import ConfigError
from headrace.dedup.counterparts import Counterparts, SignedCorpus, counterparts
from headrace.dedup.overlap import Overlap, WordStream, stream_overlap
from headrace.ingest.documents import read_piece
from headrace.ingest.files import EXTENSIONS, InputFile, find_files
from headrace.ingest.listing import Piece, described
from headrace.ingest.objects import SCHEME, Place, name_of
from headrace.ingest.record import Record, Rejected
from headrace.ingest.source import Source
from headrace.ingest.streams import COMPRESSIONS, StreamError, chunks
from headrace.text.shingles import word_hashes

TEXT_FIELD = "text"  # of a JSON object or a Parquet row
MEASURES = {
    "of_longer": "shared / longer",
    "of_both": "shared / both together",
    "a_in_b": "containment of A in B",
    "b_in_a": "containment of B in A",
    "jaccard": "Jaccard",
}


@dataclass
class Side:
    """One of the two that are compared: a text, a file that is one text of any length, or the documents of some files."""

    name: str
    text: str | None = None
    files: Sequence[InputFile] = ()
    left_out: Counter[str] = field(default_factory=Counter)  # records and files that could not be read, by reason

    @property
    def one_text(self) -> bool:
        return self.text is not None or (len(self.files) == 1 and self.files[0].format == "text")

    def texts(self) -> Iterator[str]:
        """Its documents, as ingest reads them but for the masking of personal data."""
        if self.text is not None:
            yield self.text
        for file in self.files:
            for item in read_piece(described(Piece(file, file.bytes)), TEXT_FIELD):
                if isinstance(item, Record):
                    yield item.text
                elif isinstance(item, Rejected):
                    self.left_out[item.reason] += 1

    def parts(self) -> Iterator[str]:
        """Its one text, cut where words end."""
        if self.text is not None:
            yield self.text
        for file in self.files:
            yield from text_parts(file.place)


def side(argument: str, name: str, as_text: bool) -> Side:
    """What an argument stands for: a file, a folder or a pattern where there is such a thing, else a text.

    Args:
        name: "A" or "B".
        as_text: whatever there is, it is a text.

    Raises:
        ConfigError: no UTF-8; or it has the look of a file that is not there.
    """
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name}: the argument is not UTF-8; give it in a file.") from None
    if as_text:
        return Side(name, argument)
    if argument.startswith(SCHEME) or _is_there(argument):
        return Side(name, files=_found(argument, name))
    if _names_a_file(argument):
        raise ConfigError(f"{name} = {argument!r}: no such file; correct the path, or say --text if it is a text.")
    return Side(name, argument)


def _found(argument: str, name: str) -> list[InputFile]:
    try:
        return find_files(Source(name=name.lower(), kind="prose", path=argument))
    except ConfigError as error:
        why = str(error).partition(": ")[2].partition(". Correct it")[0].rstrip(".")  # less the key of a YAML, which is not used here
        raise ConfigError(f"{name} = {argument!r}: no file to read: {why or error}.") from None


def _is_there(argument: str) -> bool:
    """Whether it is a path, or a pattern of some; a text may be too long to be asked for, or be no pattern."""
    if not argument:
        return False
    try:
        return Path(argument).exists() or (glob.has_magic(argument) and bool(glob.glob(argument, recursive=True)))  # noqa: PTH207
    except (OSError, ValueError):
        return False


def _names_a_file(argument: str) -> bool:
    """Whether what is not there was meant as a path: it ends as the files that are read do, and holds a / or no space."""
    path = Path(argument)
    ending = Path(path.stem).suffix if path.suffix.lower() in COMPRESSIONS else path.suffix
    known = path.suffix.lower() in COMPRESSIONS or ending.lower() in {*EXTENSIONS, ".txt"}
    return known and (os.sep in argument or not any(letter.isspace() for letter in argument))


def text_parts(place: Place) -> Iterator[str]:
    """A text file, plain or compressed, as strings whose ends are ends of words; only one is in memory.

    Raises:
        ConfigError: it cannot be read to its end, or is no UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    held = ""
    try:
        for chunk in chunks(place):
            held += decoder.decode(chunk)
            # White space ends a word, and what `str.lower` does to a letter depends on nothing beyond it.
            cut = max(held.rfind(" "), held.rfind("\n")) + 1
            yield held[:cut]
            held = held[cut:]
        yield held + decoder.decode(b"", final=True)
    except StreamError as error:
        raise ConfigError(f"{name_of(place)}: {error}; mend the file, or name it by what it is.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name_of(place)}: no UTF-8 ({error.reason}); convert the file first.") from None


def numbers(given: str) -> list[int]:
    """What --n lists.

    Raises:
        ConfigError: anything but positive integers between commas.
    """
    try:
        ns = [int(part) for part in given.split(",")]
    except ValueError:
        ns = []
    if not ns or min(ns) < 1:
        raise ConfigError(f"--n {given}: an n-gram has one word or more; list such numbers, as in --n 1,2,3.")
    return ns


def compare(a: Side, b: Side, ns: Sequence[int], threshold: float) -> dict[str, Any]:
    """The overlap of two sides, as plain values: `ngrams` a mapping for each n; `documents`, null where both sides are one text.

    Raises:
        ConfigError: a side without a document that could be read, or a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"--threshold {threshold}: a Jaccard similarity above 0, at most 1, is asked for.")
    if a.one_text and b.one_text:
        with _streamed(a) as first, _streamed(b) as second:
            return _as_json(a, b, [stream_overlap(first, second, n) for n in ns], None)
    with SignedCorpus(a.texts(), threshold) as ours, SignedCorpus(b.texts(), threshold) as theirs:
        for each, read in ((a, ours), (b, theirs)):
            if not len(read):
                raise ConfigError(f"{each.name}: no document in {_files(each)}: {_reasons(each)}.")
        return _as_json(a, b, [stream_overlap(ours.words, theirs.words, n) for n in ns], counterparts(ours, theirs))


def _streamed(one: Side) -> WordStream:
    stream = WordStream()
    for part in one.parts():
        stream.write_part(word_hashes([part])[1])
    stream.end_document()
    return stream


def _files(one: Side) -> str:
    return one.files[0].path if len(one.files) == 1 else f"{len(one.files)} files"


def _reasons(one: Side) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(one.left_out.items())) or "nothing in them"


def _as_json(a: Side, b: Side, ngrams: Sequence[Overlap], documents: Counterparts | None) -> dict[str, Any]:
    rows = []
    for row in ngrams:
        counts = {name: getattr(row, name) for name in ("n", "a", "b", "shared", "distinct_a", "distinct_b", "distinct_shared")}
        ratios = {name: getattr(row, name) for name in MEASURES}
        rows.append({**counts, **{name: None if ratio is None else float(ratio) for name, ratio in ratios.items()}})
    found: dict[str, Any] = {"ngrams": rows, "documents": None, "left_out": {"a": dict(a.left_out), "b": dict(b.left_out)}}
    if documents is not None:
        found["documents"] = {
            "a": documents.documents_a,
            "b": documents.documents_b,
            "threshold": documents.threshold,
            "exact": documents.exact,
            "near": documents.near,
            "containment_tenths": list(documents.containment),
        }
    return found


def print_comparison(found: dict[str, Any], console: Console) -> None:
    """The tables for a person."""
    table = Table("", *(f"n = {row['n']}" for row in found["ngrams"]), title="n-grams of words")
    for name, label in (("a", "A"), ("b", "B"), ("shared", "shared")):
        table.add_row(label, *(f"{row[name]:,}" for row in found["ngrams"]))
    for name, label in (("distinct_a", "A, distinct"), ("distinct_b", "B, distinct"), ("distinct_shared", "shared, distinct")):
        table.add_row(label, *(f"{row[name]:,}" for row in found["ngrams"]), end_section=name == "distinct_shared")
    for name, label in MEASURES.items():
        table.add_row(label, *("-" if row[name] is None else f"{row[name]:.1%}" for row in found["ngrams"]))
    console.print(table)
    if documents := found["documents"]:
        table = Table("documents", "", title="Documents of B with a counterpart in A")
        rows = {
            "in A": documents["a"],
            "in B": documents["b"],
            "  of them exact copies": documents["exact"],
            f"  near (Jaccard {documents['threshold']:g} or more)": documents["near"],
            "  without a counterpart": documents["b"] - documents["exact"] - documents["near"],
        }
        for label, count in rows.items():
            table.add_row(label, f"{count:,}", end_section=label.startswith("  without"))
        for tenth, count in reversed(list(enumerate(documents["containment_tenths"]))):
            if count:
                table.add_row("whole in its counterpart" if tenth == 10 else f"{tenth * 10}-{tenth * 10 + 10} % of it", f"{count:,}")
        console.print(table)
    for name, reasons in found["left_out"].items():
        if reasons:
            listed = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
            console.print(f"left out of {name.upper()}: {listed}")
