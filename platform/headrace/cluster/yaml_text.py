"""YAML as a person writes it: comments where something is to be decided, short lists and mappings on one line, long commands folded."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headrace.config import dump_yaml

WIDTH = 140

Place = tuple[str | int, ...]  # keys and indices from the top


def write(value: Any, comments: Mapping[Place, str] | None = None, header: str = "") -> str:
    """`value` as a YAML document.

    Args:
        value: mappings, lists and scalars.
        comments: what stands above the key of a place.
        header: what stands at the top.
    """
    lines = [*_comment(header, ""), *_block(value, (), "", comments or {})]
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}# {line}".rstrip() for line in text.strip().splitlines()] if text else []


def _block(value: Any, place: Place, indent: str, comments: Mapping[Place, str]) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _comment(comments.get((*place, key), ""), indent)
            yield from _entry(f"{indent}{_scalar(key)}:", item, (*place, key), indent + "  ", comments)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for index, item in enumerate(value):
            yield from _comment(comments.get((*place, index), ""), indent)
            if isinstance(item, Mapping) and item and not _flows(item, (*place, index), len(indent) + 2, comments):
                first, *rest = _block(item, (*place, index), indent + "  ", comments)
                while first.lstrip().startswith("#"):  # a comment above the first key goes above the dash
                    yield indent + first.lstrip()
                    first, *rest = rest
                yield f"{indent}- {first[len(indent) + 2 :]}"
                yield from rest
            else:
                yield from _entry(f"{indent}-", item, (*place, index), indent + "  ", comments)
    else:
        yield indent + _scalar(value)


def _entry(start: str, value: Any, place: Place, indent: str, comments: Mapping[Place, str]) -> Iterator[str]:
    """A key or a dash with its value, on one line where that is readable."""
    if isinstance(value, str) and "\n" in value:
        yield from _literal(start, value, indent)
    elif (
        isinstance(value, str) and len(start) + len(value) > WIDTH and (folded := textwrap.wrap(value, WIDTH - len(indent), **_WHOLE_WORDS))
    ):
        if " ".join(folded) == value:
            yield f"{start} >-"
            yield from (indent + line for line in folded)
        else:  # spaces that folding would lose
            yield f"{start} {_scalar(value)}"
    elif _flows(value, place, len(start), comments):
        yield f"{start} {_scalar(value)}"
    else:
        yield start
        yield from _block(value, place, indent, comments)


_WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def _literal(start: str, value: str, indent: str) -> Iterator[str]:
    lines = value.removesuffix("\n").split("\n")
    if value.endswith("\n\n") or lines[0][:1] in ("", " ") or not all(line.isprintable() for line in lines):
        yield f"{start} {_scalar(value)}"
        return
    yield f"{start} |" if value.endswith("\n") else f"{start} |-"
    yield from (indent + line if line else "" for line in lines)


def _flows(value: Any, place: Place, column: int, comments: Mapping[Place, str]) -> bool:
    """Whether a value stands on the line of its key: a scalar, or a small thing of scalars without a comment in it."""
    if not isinstance(value, Mapping | list | tuple) or not value:
        return True
    if any(len(other) > len(place) and other[: len(place)] == place for other in comments):
        return False
    nested = list(value.values()) if isinstance(value, Mapping) else list(value)
    if any(isinstance(item, Mapping | list | tuple) and item for item in nested):
        return False
    return len(nested) <= 6 and column + len(_scalar(value)) < WIDTH - 40


def _scalar(value: Any) -> str:
    return dump_yaml(value, default_flow_style=True, width=1 << 30).removesuffix("\n").removesuffix("\n...")
