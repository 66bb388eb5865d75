"""The image: what it installs is what the project asks for, each package pinned by version and hash, and nothing secret is in it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "cluster" / "Dockerfile").read_text()
LOCK = (ROOT / "cluster" / "requirements.lock").read_text()
EXTRAS = ("evaluate", "s3", "gs")
IMAGE = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"}


def locked():
    """Versions by name, of every package in the lock."""
    found = {}
    for entry in re.split(r"\n(?=\S)", LOCK.strip()):
        head, *hashes = [line.strip(" \\") for line in entry.splitlines()]
        name, version = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)(?: ; .*)?", head).groups()
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), head
        found[canonicalize_name(name)] = Version(version)
    return found


def test_the_lock_pins_each_package_by_version_and_hash_and_names_no_host():
    assert len(locked()) > 100
    assert not re.search(r"://|index-url|find-links|trusted-host|file:|@ ", LOCK)


def test_the_lock_satisfies_the_project_and_what_the_head_needs():
    pinned = locked()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    asked += [line for line in (ROOT / "cluster" / "requirements.in").read_text().splitlines() if line and not line.startswith("#")]
    for text in asked:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(IMAGE):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text
    assert pinned["torch"].release[:2] == (2, 13) and pinned["torch"].local is None


def test_pip_reads_the_lock_with_hashes_required(tmp_path):
    """pip itself parses the file; it stops at the first package, for it may look nowhere."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "--require-hashes", "--isolated"]
    done = subprocess.run([*command, "-r", str(ROOT / "cluster" / "requirements.lock")], capture_output=True, text=True, cwd=tmp_path)
    assert "No matching distribution found for" in done.stderr, done.stderr
    assert "hash" not in done.stderr.lower() and "invalid" not in done.stderr.lower()


def test_the_dockerfile_installs_the_lock_and_nothing_beside_it():
    instructions = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    installs = re.findall(r"pip install [^&\n]*", instructions)
    assert len(installs) == 2
    assert "--require-hashes" in installs[0] and "--requirement /opt/headrace/cluster/requirements.lock" in installs[0]
    assert "--no-deps" in installs[1] and "--no-build-isolation" in installs[1] and "--editable /opt/headrace" in installs[1]
    assert re.findall(r"^FROM (\S+)$", instructions, re.MULTILINE) and re.search(
        r"^FROM python:3\.11\.\d+-\S+@sha256:[0-9a-f]{64}$", instructions, re.MULTILINE
    )
    users = re.findall(r"^USER (\S+)$", instructions, re.MULTILINE)
    assert users == ["1000"] and instructions.index("USER") > instructions.rindex("RUN")
    assert not re.search(r"^(ARG|ENV)[^\n]*(TOKEN|SECRET|PASSWORD|KEY)", instructions, re.MULTILINE | re.IGNORECASE)
    for source in re.findall(r"^COPY (.+) \S+$", instructions, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name


def test_what_is_copied_is_let_into_the_build_and_nothing_else():
    ignored = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = {name for source in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for name in source.split()}
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert {name.split("/headrace")[0] for name in allowed} == copied
