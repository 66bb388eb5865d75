"""Text that every machine has: the running Python's sources, docstrings, descriptions of packages and licences.

Real code and real prose, with real near-duplicates: vendored copies, licences that differ in a name. None of them is removed here.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import orjson
import zstandard

from headrace import storage

# What of the whole each kind may take: bytes of text by the default cap of 12 MB.
SHARES = {"code": 6.0, "docstrings": 3.5, "descriptions": 1.5, "licences": 1.0}
MANIFEST = "manifest.json"
MAX_FILE = 200_000  # bytes of a source; longer ones are tables that a program wrote
MIN_DOCSTRING = 40  # characters; shorter ones say `Return self.x.`
MIN_DOCUMENT = 200  # characters of a collected document
SKIPPED_FOLDERS = {"__pycache__", "test", "tests", "testing", "idle_test", "site-packages", "dist-packages", "lib2to3"}
LICENCE_NAMES = ("licen", "copying", "notice", "authors")


class _Document(NamedTuple):
    id: str
    text: str
    lang: str


def collect(folder: Path, cap_bytes: int = 12_000_000) -> dict[str, dict[str, int]]:
    """Write `folder`/{code,docstrings,descriptions,licences}.jsonl.zst, unless they are there from an earlier call with this cap.

    What is taken depends on the installed packages alone: candidates are tried in the order of a hash of their names, so that every
    package has its chance, and written in the order of their names.

    Args:
        cap_bytes: of text in all, UTF-8; shared out as SHARES says.

    Returns:
        {"documents", "bytes"} a kind.
    """
    manifest = folder / MANIFEST
    if manifest.is_file():
        earlier = storage.read_json(manifest)
        if earlier["cap_bytes"] == cap_bytes and all(_whole(folder, entry) for entry in earlier["files"]):
            return earlier["counts"]
        manifest.unlink()
    sources, distributions = _sources(), _distributions()
    candidates: dict[str, Iterable[_Document]] = {
        "code": _code(sources),
        "docstrings": _docstrings(sources),
        "descriptions": _descriptions(distributions),
        "licences": _licences(distributions),
    }
    counts: dict[str, dict[str, int]] = {}
    for kind, documents in candidates.items():
        taken = _capped(documents, int(cap_bytes * SHARES[kind] / sum(SHARES.values())))
        lines = b"".join(orjson.dumps(document._asdict()) + b"\n" for document in taken)
        storage.write_bytes(folder / f"{kind}.jsonl.zst", zstandard.ZstdCompressor(level=3).compress(lines))
        counts[kind] = {"documents": len(taken), "bytes": sum(len(document.text.encode()) for document in taken)}
    entries = [storage.file_entry(folder, folder / f"{kind}.jsonl.zst") for kind in candidates]
    storage.write_json(manifest, {"cap_bytes": cap_bytes, "files": entries, "counts": counts})
    return counts


def _whole(folder: Path, entry: dict[str, str | int]) -> bool:
    path = folder / str(entry["path"])
    return path.is_file() and storage.file_entry(folder, path) == entry


def _capped(documents: Iterable[_Document], cap: int) -> list[_Document]:
    """Documents up to `cap` bytes of text, ordered by id; one that would go past it is left out."""
    taken: list[_Document] = []
    room = cap
    for document in documents:
        size = len(document.text.encode())
        if size <= room:
            taken.append(document)
            room -= size
        if room < MIN_DOCUMENT:
            break
    return sorted(taken)


def _hashed(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (hashlib.sha256(name.encode("utf-8", "backslashreplace")).digest(), name))


def _sources() -> dict[str, Path]:
    """Python sources by the name they get, in the order in which they are tried: tests are left out."""
    found: dict[str, Path] = {}
    for prefix, root in (("stdlib", "stdlib"), ("packages", "purelib"), ("packages", "platlib")):
        base = sysconfig.get_path(root)
        for folder, folders, names in os.walk(base):
            folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
            inner = f"{prefix}{folder[len(base) :].replace(os.sep, '/')}"
            for name in names:
                if name.endswith(".py"):
                    found.setdefault(f"{inner}/{name}", Path(folder, name))
    return {name: found[name] for name in _hashed(found)}


def _text(path: Path) -> str | None:
    """A file's text, None where it is no UTF-8, cannot be read, is short or very long."""
    try:
        text = path.read_bytes().decode("utf-8-sig") if path.stat().st_size <= MAX_FILE else ""
    except (OSError, UnicodeDecodeError):
        return None
    return text if len(text) >= MIN_DOCUMENT and _is_text(text) else None


def _code(sources: dict[str, Path]) -> Iterator[_Document]:
    for name, path in sources.items():
        text = _text(path)
        if text is not None:
            yield _Document(name, text, "python")


def _docstrings(sources: dict[str, Path]) -> Iterator[_Document]:
    """The docstrings of a module as one document: its own, then those of its classes and functions in their order."""
    for name, path in sources.items():
        text = _text(path)
        if text is None or text.count('"""') < 4:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escape sequences
            try:
                tree = ast.parse(text)
            except (SyntaxError, ValueError, RecursionError):
                continue
        joined = "\n\n".join(_cleaned(tree))
        if len(joined) >= MIN_DOCUMENT:
            yield _Document(f"{name}#docstrings", joined, "en")


def _cleaned(tree: ast.Module) -> Iterator[str]:
    for node in (tree, *_definitions(tree.body)):
        docstring = ast.get_docstring(node, clean=False)
        if docstring is not None and len(docstring) >= MIN_DOCSTRING:
            cleaned = inspect.cleandoc(docstring).strip()
            if cleaned and _is_text(cleaned):
                yield cleaned


def _definitions(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Classes and functions in their order, nested and conditional ones too; expressions, which hold most nodes, are not walked."""
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement
            yield from _definitions(statement.body)
        elif isinstance(statement, ast.If | ast.Try):
            yield from _definitions([*statement.body, *statement.orelse])


def _is_text(text: str) -> bool:
    """Without NUL and lone surrogates, which a Python literal or badly decoded metadata may hold."""
    return re.search("[\\0\ud800-\udfff]", text) is None


def _distributions() -> dict[str, importlib.metadata.Distribution]:
    """Installed packages by name and version, in the order in which they are tried."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata
        if metadata["Name"]:
            found.setdefault(f"{metadata['Name'].lower()}-{metadata['Version']}", distribution)
    return {name: found[name] for name in _hashed(found)}


def _descriptions(distributions: dict[str, importlib.metadata.Distribution]) -> Iterator[_Document]:
    """What each package says of itself: the README in its metadata."""
    for name, distribution in distributions.items():
        text = str(distribution.metadata.json.get("description", "")).strip()
        if len(text) >= MIN_DOCUMENT and _is_text(text):
            yield _Document(f"{name}/description", f"{text}\n", "en")


def _licences(distributions: dict[str, importlib.metadata.Distribution]) -> Iterator[_Document]:
    """Licence files of the packages, and Python's own."""
    own = Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"
    text = _text(own)
    if text is not None:
        yield _Document("python/LICENSE.txt", text, "en")
    for name, distribution in distributions.items():
        for file in sorted(distribution.files or [], key=str):
            if ".dist-info" in file.as_posix() and file.name.lower().startswith(LICENCE_NAMES):
                text = _text(Path(str(distribution.locate_file(file))))
                if text is not None:
                    yield _Document(f"{name}/{file.name}", text, "en")
