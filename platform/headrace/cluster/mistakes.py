"""What `headrace cluster validate` has to say of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: where, by which rule, and a sentence with the value and the way out."""

    place: str  # keys from the top of the document, joined by dots
    rule: str
    sentence: str


def path(keys: Sequence[str | int]) -> str:
    return ".".join(str(key) for key in keys) or "document"


def at(value: Any, *keys: str | int, default: Any = None) -> Any:
    """The value at a place, or `default` where the way to it ends; files under validation may have any shape."""
    step: Any
    for step in keys:
        if isinstance(value, Mapping):
            if step not in value:
                return default
        elif not isinstance(value, list | tuple) or not isinstance(step, int) or step >= len(value):
            return default
        value = value[step]
    return value


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return dict(value) if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []
