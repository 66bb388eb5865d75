"""Configuration: one YAML, typed and frozen, with `key.sub.0=value` overrides; every mistake reported at once."""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

T = typing.TypeVar("T", bound="Config")
ENVIRONMENT = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class ConfigError(ValueError):
    """A mistake that only the user can mend: exit code 2, one sentence a mistake."""


class Config(BaseModel):
    """Base of every configuration model: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class _Dumper(yaml.SafeDumper):
    """Quotes texts with line ends beyond ASCII's: as they are, PyYAML writes them, and reads a space."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if set(text) & set("\x85\u2028\u2029") else None)


_Dumper.add_representer(str, _text)


def dump_yaml(value: Any, **layout: Any) -> str:
    """Plain values as YAML that comes back as they are; keys in their order."""
    written: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **layout)
    return written


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file is absent, is no YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `headrace init {path}` writes a commented one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(content: str | bytes, place: str) -> dict[str, Any]:
    """The mapping in a YAML document.

    Args:
        place: what messages call it.

    Raises:
        ConfigError: it is no YAML, or holds no mapping.
    """
    try:
        loaded = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ConfigError(f"{place}: not valid YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{place}: expected a mapping of keys at the top, got {type(loaded).__name__}.")
    return loaded


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with `a.b.0.c=value` assignments applied; a value is read as YAML.

    Raises:
        ConfigError: an assignment without `=`, or a path that runs through a value that is no mapping or list.
    """
    result = typing.cast("dict[str, Any]", _copied(values))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ConfigError(f"{assignment!r} is no override; write key.sub.0.name=value.")
        try:
            value = yaml.safe_load(text) if text else None
        except yaml.YAMLError:
            value = text  # a glob such as *.jsonl is no YAML alias here but plain text
        _assign(result, path, path.split("."), value)
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


def _assign(node: Any, path: str, keys: list[str], value: Any) -> None:
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) > len(node):
                raise ConfigError(f"{path}: {key!r} is no index into a list of {len(node)}; the next free one is {len(node)}.")
            index = int(key)
            if index == len(node):
                node.append({})
            if last:
                node[index] = value
            elif not isinstance(node[index], dict | list):
                node[index] = {}
            node = node[index]
        elif isinstance(node, dict):
            if last:
                node[key] = value
            elif not isinstance(node.get(key), dict | list):
                node[key] = [] if keys[depth + 1].isdigit() else {}
            node = node[key]
        else:
            raise ConfigError(f"{path}: {'.'.join(keys[:depth])} is a plain value and has no {key!r}.")


def expand_environment(value: Any, place: str = "") -> Any:
    """`${env:NAME:-default}` replaced throughout.

    Raises:
        ConfigError: a variable that is not set and has no default.
    """
    if isinstance(value, Mapping):
        return {key: expand_environment(item, f"{place}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_environment(item, f"{place}.{index}".lstrip(".")) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = os.environ.get(name, default)
        if found is None:
            raise ConfigError(f"{place} = {value!r}: the environment variable {name} is not set; set it or write ${{env:{name}:-default}}.")
        return found

    return ENVIRONMENT.sub(replace, value)


def validate(model: type[T], values: Mapping[str, Any], source: str) -> T:
    """`values` as a `model`.

    Raises:
        ConfigError: every mistake, a line each, as `source: field = value: what is wrong; did you mean`.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_line(model, source, mistake) for mistake in _of_the_likeliest(error.errors()))) from None


def _of_the_likeliest(mistakes: Sequence[Any]) -> list[Any]:
    """Without what the other branches of a union say of a value that is nearer to one; a mistake deeper inside it tells which, too."""
    places = [_place(mistake) for mistake in mistakes]
    ranks = [_distance(mistake) for mistake in mistakes]

    def hidden(place: list[Any], rank: int) -> bool:
        return any(
            (len(other) > len(place) and other[: len(place)] == place) or (other == place and nearer < rank)
            for other, nearer in zip(places, ranks)
        )

    return [mistake for mistake, place, rank in zip(mistakes, places, ranks) if not hidden(place, rank)]


def _distance(mistake: Any) -> int:
    """How far a value is from what a mistake says it should be: of its type but out of bounds, a word for another, or nothing like it."""
    if mistake["type"].endswith(("_type", "_parsing")):
        return 2
    return 1 if mistake["type"] == "literal_error" else 0


def _place(mistake: Any) -> list[Any]:
    """Where a mistake is in the YAML: without the names by which pydantic tells the branches of a union apart."""
    return [part for part in mistake["loc"] if not (isinstance(part, str) and re.search(r"[\[A-Z]|^(int|str|constrained-)", part))]


def _line(model: type[Config], source: str, mistake: Any) -> str:
    place = _place(mistake)
    field = ".".join(str(part) for part in place)
    if mistake["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), _fields_at(model, place[:-1]), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{source}: {field}: unknown key{hint}"
    if mistake["type"] == "missing":
        return f"{source}: {field}: required, but absent"
    message = re.sub(r"^Value error, ", "", mistake["msg"])
    message = message[:1].lower() + message[1:]
    shown = mistake["input"]
    if isinstance(shown, Mapping | list):
        return f"{source}: {field or 'configuration'}: {message}"
    expected = mistake.get("ctx", {}).get("expected")
    if expected and isinstance(shown, str):
        choices = re.findall(r"'([^']+)'", str(expected))
        near = difflib.get_close_matches(shown, choices, n=1, cutoff=0.5)
        message += f"; did you mean {near[0]!r}?" if near else ""
    return f"{source}: {field} = {shown!r}: {message}"


def _fields_at(model: Any, place: Sequence[Any]) -> list[str]:
    """Names of the fields that a mapping at `place` may have, over every branch of a union."""
    models = _models(model)
    for part in place:
        if isinstance(part, int):
            continue
        models = [
            inner
            for outer in models
            for inner in (
                _models(outer.model_fields[part].annotation)
                if part in outer.model_fields
                else [outer]
                if outer.model_fields.get("name") and outer.model_fields["name"].default == part
                else []
            )
        ]
    return sorted({field.alias or name for found in models for name, field in found.model_fields.items()})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for argument in typing.get_args(annotation) for found in _models(argument)]
