"""The verb as a whole, against a server in a dashboard's place; the cluster that it starts is seen by tests/security."""

import importlib.metadata
import io
import json
import os
import subprocess
import sys

import pytest
import yaml
from rich.console import Console

from headrace.cli.doctor import print_finding
from headrace.doctor import Finding, examine

TOKEN = "a" * 64


@pytest.fixture
def doctor(tmp_path):
    """A function that runs the verb for a run's YAML and a cluster's address: (exit code, output)."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"out": str(tmp_path / "run"), "sources": [{"name": "mill", "kind": "prose", "path": "raw"}]}))
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)

    def run(address, *arguments):
        command = [sys.executable, "-m", "headrace.cli", "doctor", str(path), "--address", address, *arguments]
        environment = os.environ | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert TOKEN not in done.stdout + done.stderr
        return done.returncode, done.stdout

    return run


def test_every_check_says_how_it_stands_and_the_exit_code_sums_them_up(doctor, server):
    code, output = doctor(server({"none": 200, "wrong": 200, "ours": 200}, version=importlib.metadata.version("ray")), "--json")
    found = json.loads(output)
    levels = {each["check"]: each["level"] for each in found["checks"]}
    good = ("python", "packages", "configuration", "ports", "all-reduce, gloo", "token", "Ray, cluster", "clock, cluster")
    assert levels | dict.fromkeys(good, "ok") == levels
    assert (levels["without a token"], levels["with a wrong token"]) == ("error", "error") and "with our token" not in levels
    assert {"memory", "shared memory", "disk, run", "file descriptors", "clock", "C++ compiler", "GPU"} <= set(levels)
    assert all(each["found"] and (each["level"] == "ok" or each["do"]) for each in found["checks"])
    assert code == 1 and found["error"] == list(levels.values()).count("error")


def test_a_finding_is_a_line_or_columns_on_a_terminal():
    finding = Finding("token", "error", "/a/very/long/path/" * 8 + ": [mode] 0644", "chmod 600 it.")
    line, columns = (Console(file=io.StringIO(), force_terminal=terminal, width=80) for terminal in (False, True))
    for console in (line, columns):
        print_finding(finding, console)
    assert line.file.getvalue() == f"error   token: {finding.found} -> chmod 600 it.\n"
    shown = columns.file.getvalue()
    assert len(shown.splitlines()) > 3 and "-> chmod 600 it." in shown and "[mode]" in shown


def test_a_mistake_in_the_configuration_is_a_finding_like_others(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("out: x\nsauces: []\n")
    said = []
    for finding in examine(path, "http://127.0.0.1:1"):
        said.append(finding)
        if finding.check == "ports":  # what follows is slow, and seen above
            break
    assert [(each.level, each.check) for each in said if each.check == "configuration"] == [("error", "configuration")] * 2
    assert "sauces" in str(said)


def test_a_token_in_a_comment_of_the_configuration_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    path = tmp_path / "run.yaml"
    path.write_text(f"out: {tmp_path}/run\nsources: [{{name: a, kind: prose, path: raw}}]  # {TOKEN}\n")
    found = next(finding for finding in examine(path) if finding.check == "configuration")
    assert found.level == "error" and "holds the value of RAY_AUTH_TOKEN" in found.found and TOKEN not in str(found)
