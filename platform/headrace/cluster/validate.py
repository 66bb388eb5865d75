"""Files of a cluster, checked without a cloud: what Ray, KubeRay's schemas and our own rules say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from headrace.cluster import crds, plain_objects
from headrace.cluster.kuberay_lints import kuberay_mistakes
from headrace.cluster.launcher_schema import node_mistakes, schema_mistakes, unchecked
from headrace.cluster.lints import launcher_mistakes
from headrace.cluster.mistakes import Mistake, at
from headrace.cluster.shell import script_mistakes
from headrace.config import ConfigError
from headrace.credentials import secret_values

SECRETS = {
    "an access key of AWS": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a token": re.compile(r"RAY_AUTH_TOKEN['\"]?\s*[=:]\s*['\"]?[^\s'\"]|(?<!sha256:)\b[0-9a-f]{64}\b"),
    "a credential of Hugging Face, GitHub or Google": re.compile(
        r"\b(hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36,}|ya29\.[\w-]{20,}|AIza[\w-]{35})\b"
    ),
}
WAY_OUT = "secrets stand in no file of a cluster: mount the token's file, name a Secret, or give the machine a role"


@dataclass(frozen=True)
class Checked:
    """One file: what is wrong with it, and what could not be checked here."""

    file: str
    mistakes: tuple[Mistake, ...]
    unchecked: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        return [f"{self.file}: {mistake.place}: {mistake.sentence} [{mistake.rule}]" for mistake in self.mistakes]

    def plain(self) -> dict[str, Any]:
        return {"file": self.file, "mistakes": [asdict(mistake) for mistake in self.mistakes], "unchecked": list(self.unchecked)}


def validate_files(paths: Sequence[Path]) -> list[Checked]:
    """Every mistake of every file.

    Raises:
        ConfigError: a file cannot be read.
    """
    return [validate_text(_read(path), str(path)) for path in paths]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def validate_text(text: str, file: str) -> Checked:
    """Every mistake of a file's text; its name tells a shell script from YAML."""
    secret = tuple(_secrets(text))
    if file.endswith(".sh"):
        return Checked(file, (*secret, *script_mistakes(text.splitlines())))
    try:
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
    except yaml.YAMLError as error:
        return Checked(file, (*secret, Mistake("document", "yaml", f"not valid YAML: {' '.join(str(error).split())}")))
    mistakes, left = list(secret), []
    if not documents:
        mistakes.append(Mistake("document", "yaml", "empty"))
    for number, document in enumerate(documents):
        found, note = _document(document, documents)
        prefix = f"{number}:" if len(documents) > 1 else ""
        mistakes += [Mistake(f"{prefix}{mistake.place}", mistake.rule, mistake.sentence) for mistake in found]
        left += [f"{prefix}{note}"] if note else []
    return Checked(file, tuple(mistakes), tuple(left))


def _document(document: Any, documents: Sequence[Any]) -> tuple[list[Mistake], str | None]:
    """Mistakes of one document, and what of it could not be checked."""
    if not isinstance(document, dict):
        return [Mistake("document", "yaml", f"expected a mapping, got {type(document).__name__}")], None
    kind = str(document.get("kind"))
    if "provider" in document or "cluster_name" in document:
        found = [*schema_mistakes(document), *node_mistakes(document), *launcher_mistakes(document)]
        return found, unchecked(document)
    if str(document.get("apiVersion", "")).startswith("ray.io/"):
        if kind not in crds.KINDS or document["apiVersion"] != crds.API:
            return [
                Mistake("kind", "schema", f"{document['apiVersion']} {kind}: expected {crds.API} and one of {', '.join(crds.KINDS)}")
            ], None
        others = [each for each in documents if isinstance(each, dict)]
        return [*crds.manifest_mistakes(document, kind), *kuberay_mistakes(document, kind, others)], None
    if kind in plain_objects.KINDS:
        return list(plain_objects.object_mistakes(document, kind)), None
    if kind == "Secret" and (document.get("data") or document.get("stringData")):
        return [Mistake("data", "secret", f"a Secret with its value; {WAY_OUT}")], None
    if "apiVersion" in document:
        return [], f"{document['apiVersion']} {kind} is not known here"
    if at(document, "head") and at(document, "train"):
        return [
            Mistake(
                "document", "kind", "a spec, from which files are made: headrace cluster render --target aws|gcp|azure|kuberay|local FILE"
            )
        ], None
    return [
        Mistake("document", "kind", "neither a launcher's file (cluster_name, provider) nor a Kubernetes manifest (apiVersion, kind)")
    ], None


def _secrets(text: str) -> Iterator[Mistake]:
    """Places of what must stand in no file, never the thing itself."""
    values = secret_values()
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in SECRETS.items():
            if pattern.search(line):
                yield Mistake(f"line {number}", "secret", f"holds {what}; {WAY_OUT}")
        for name, value in values.items():
            if value in line:
                yield Mistake(f"line {number}", "secret", f"holds the value of {name}; {WAY_OUT}")
