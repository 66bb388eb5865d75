"""The rig's network, and what it says where there can be none; runs on it are in tests/faults/test_nodes.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.cluster.rig import NAMESPACES, Rig, here, obstacle, run
from headrace.config import ConfigError

SCRIPT = Path(__file__).with_name("run_network.py")


def test_a_node_that_is_cut_off_is_reached_by_nobody_until_it_is_healed(needs: Callable[[str, str | None], None]) -> None:
    needs("namespaces", obstacle())
    done = subprocess.run([*NAMESPACES, sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["before"] == [True, True]
    assert told["cut"] == [False, False, True], "and the others are not"
    assert told["healed"] == [True, True]
    assert told["killed"] == [None, -signal.SIGKILL, None] and told["left"] == 0


def test_a_machine_without_the_tools_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert obstacle() == "a rig needs the command unshare, nsenter, ip, mount (Debian: util-linux, iproute2)"
    with pytest.raises(ConfigError, match="a rig needs the command unshare"):
        run(2, 1, ["true"])


def test_a_machine_that_allows_no_namespaces_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("nsenter", "ip", "mount", "unshare"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'unshare: write failed /proc/self/uid_map: Operation not permitted' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    why = obstacle()
    assert why is not None and why.endswith("unshare: write failed /proc/self/uid_map: Operation not permitted")
    assert why.startswith("a rig needs unprivileged user namespaces")


def test_faults_are_for_the_inside_and_for_nodes_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_RIG", raising=False)
    with pytest.raises(ConfigError, match="not inside a rig"):
        here()
    with pytest.raises(ConfigError, match=r"node 'n7': the rig has n1, n2\."):
        Rig(("n1", "n2"), 1, "", "").cut("n7")
