"""Credentials: where they may stand, and where not.

A cluster's token is found as Ray finds it. A configuration holds none: it is written to RUN/config.yaml, into manifests and reports, and
is shown by `plan`; the libraries that need a credential take it from the environment or the role of the node that uses it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.config import ENVIRONMENT, ConfigError

TOKEN, TOKEN_PATH, MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"
DEFAULT_TOKEN = Path("~/.ray/auth_token")  # Ray's own
MIN_TOKEN_BYTES = 32
NAME = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|KEY|APIKEY)$", re.IGNORECASE)
MIN_SECRET_CHARS = 12  # a shorter value of such a variable may stand in a path by chance
USER_IN_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*@")
SIGNED_URL = re.compile(
    r"://.*[?&](X-Amz-(Signature|Credential|Security-Token)|X-Goog-Signature|Signature|sig|token|access_token|api_?key|password)=",
    re.IGNORECASE,
)
WAY_OUT = (
    "a configuration holds no credential, for it is written into the run's folder. boto3 and Google's client take theirs from the "
    "environment or the role of the node that reads (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS); Ray's token stands in the file that "
    "RAY_AUTH_TOKEN_PATH names"
)


@dataclass(frozen=True)
class Token:
    """A cluster's token, and the variable or the file that it was found in."""

    text: str = field(repr=False)
    place: str
    path: Path | None = None


def find_token(environment: Mapping[str, str] | None = None) -> Token | None:
    """The token that Ray's clients would show: RAY_AUTH_TOKEN, else the file RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token.

    Raises:
        ConfigError: the file that RAY_AUTH_TOKEN_PATH names cannot be read.
    """
    environment = os.environ if environment is None else environment
    if environment.get(TOKEN):
        return Token(environment[TOKEN].strip(), TOKEN)
    if named := environment.get(TOKEN_PATH):
        return read_token(Path(named).expanduser(), TOKEN_PATH)
    with contextlib.suppress(ConfigError):
        return read_token(DEFAULT_TOKEN.expanduser(), "~/.ray/auth_token")
    return None


def read_token(path: Path, named_by: str) -> Token:
    """The token in a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return Token(path.read_text().strip(), str(path), path)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no text"
        raise ConfigError(
            f"{named_by} = {str(path)!r}: the token cannot be read ({why}); name the file that holds the cluster's."
        ) from None


def token_faults(token: Token) -> list[str]:
    """Why a token protects nothing, a sentence each with the way out; empty for a good one."""
    found = []
    if len(token.text.encode()) < MIN_TOKEN_BYTES:
        found.append(
            f"{token.place}: the token has {len(token.text.encode())} bytes, fewer than {MIN_TOKEN_BYTES}, and can be guessed; "
            "give the cluster a new one: python -c 'import secrets; print(secrets.token_hex(32))'."
        )
    if token.path is not None and (mode := stat.S_IMODE(token.path.stat().st_mode)) & 0o077:
        found.append(f"{token.path}: mode {mode:04o}, so other users of this machine can read the token; chmod 600 {token.path}.")
    return found


def refuse_credentials(written: Any, meant: Any, source: str) -> None:
    """Refuse a configuration that holds a credential, without showing it.

    Args:
        written: plain values as the YAML and the overrides have them.
        meant: the same with `${env:...}` replaced.

    Raises:
        ConfigError: every place that holds one: `${env:NAME}` of a name that credentials have, the value of such a variable or the token,
            a URL with a user or a signature in it.
    """
    values = secret_values()
    places = {place: f"${{env:{name}}} is named as a credential is" for place, text in _texts(written) for name in _named_credentials(text)}
    for place, text in _texts(meant):
        if USER_IN_URL.search(text):
            places.setdefault(place, "the URL names a user")
        elif SIGNED_URL.search(text):
            places.setdefault(place, "the URL holds a signature or a key")
        elif name := next((name for name, value in values.items() if value in text), None):
            places.setdefault(place, f"it holds the value of {name}")
    if places:
        raise ConfigError("\n".join(f"{source}: {place}: {why}; {WAY_OUT}." for place, why in places.items()))


def secret_values(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Values that must be written nowhere, by where they are: of variables that are named as credentials are, and the token.

    Values that are the path of a file name a credential and are none.
    """
    environment = os.environ if environment is None else environment
    found = {
        name: value
        for name, value in environment.items()
        if NAME.search(name) and len(value) >= MIN_SECRET_CHARS and not _is_path(Path(value))
    }
    with contextlib.suppress(ConfigError):
        if (token := find_token(environment)) and len(token.text) >= MIN_SECRET_CHARS:
            found.setdefault(token.place, token.text)
    return found


def _is_path(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or a NUL
        return False


def _named_credentials(text: str) -> Iterator[str]:
    return (match[1] for match in ENVIRONMENT.finditer(text) if NAME.search(match[1]))


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every string in plain values, keys included, with its place as an override writes it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            below = f"{place}.{key}".lstrip(".")
            yield place or "configuration", str(key)
            yield from _texts(item, below)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{place}.{index}".lstrip("."))
    elif isinstance(value, str):
        yield place, value
