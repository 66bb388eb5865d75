"""Who a token is sent to: no address beyond this machine without one, and nobody that a strange run's folder names."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from headrace import storage
from headrace.config import ConfigError
from headrace.control import cluster


@pytest.fixture
def token(tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    return path


@pytest.fixture(autouse=True)
def no_token_of_the_user(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("headrace.credentials.DEFAULT_TOKEN", tmp_path / "none")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "::ffff:127.0.0.1"])
def test_hosts_of_this_machine(host):
    assert cluster.is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "::ffff:10.0.0.1", "10.0.0.1", "localhost.example.org", "127.0.0.1.nip.io", "2130706433", "", None]
)
def test_hosts_that_may_be_anywhere(host):
    assert not cluster.is_loopback(host)


@pytest.mark.parametrize(
    "address", ["http://10.0.0.1:8265", "https://head.example.org:443", "http://0.0.0.0:8265", "http://[2001:db8::1]:1"]
)
def test_an_address_beyond_this_machine_needs_a_token(address):
    with pytest.raises(ConfigError, match=r"beyond this machine, and there is no token.*RAY_AUTH_TOKEN_PATH=FILE \(mode 0600\)"):
        cluster.remote(address)


def test_this_machine_needs_none_and_a_good_token_is_used(request):
    assert cluster.remote("http://127.0.0.1:8265").environment() == {}
    path = request.getfixturevalue("token")
    assert cluster.remote("http://10.0.0.1:8265").environment() == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def test_a_token_that_others_read_or_guess_is_not_sent(token):
    token.chmod(0o644)
    with pytest.raises(ConfigError, match=r"mode 0644.*chmod 600"):
        cluster.remote("http://10.0.0.1:8265")
    token.chmod(0o600)
    token.write_text("short")
    with pytest.raises(ConfigError, match="5 bytes, fewer than 32"):
        cluster.remote("http://127.0.0.1:8265")


@pytest.mark.parametrize(
    "address",
    [
        "ray://h:10001",
        "h:8265",
        "http://h",
        "http://u:secret@h:8265",
        "http://h:8265/x",
        "http://h:8265?t=secret",
        "http://h:no",
        "",
        "auto",
    ],
)
def test_what_is_no_dashboard_is_refused_and_not_shown(token, address):
    with pytest.raises(ConfigError, match="not the address of a Ray dashboard; write http://HOST:PORT") as raised:
        cluster.remote(address)
    assert "secret" not in str(raised.value)


def test_ray_s_own_variables_do_not_lead_a_client_elsewhere(token, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://198.51.100.1:8265")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "that of another cluster")
    cluster.Running("http://127.0.0.1:1", str(token), 1, "mark").use()
    assert not {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN"} & set(os.environ)
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(token) and os.environ["RAY_AUTH_MODE"] == "token"


@pytest.fixture
def mark():
    """A folder as a local cluster's is."""
    with tempfile.TemporaryDirectory(prefix=cluster.PREFIX, dir="/tmp") as folder:
        (Path(folder) / "token").touch()
        yield Path(folder)


def test_a_record_that_came_with_a_strange_folder_is_not_believed(tmp_path, mark, monkeypatch):
    """A cluster.json could name a stranger's address, any file as the token, any process as the keeper, any folder to be deleted."""
    monkeypatch.setattr(cluster, "_is_keeper", lambda pid, mark: True)
    good = cluster.Running("http://127.0.0.1:1", str(mark / "token"), os.getpid(), str(mark))
    cluster.publish(tmp_path, good)
    assert cluster.find_running(tmp_path) == good
    strange = tmp_path / "headrace-strange"
    strange.mkdir()
    (strange / "token").touch()
    link = Path(f"{mark}-link")
    link.symlink_to(strange)
    try:
        for change in (
            {"address": "http://198.51.100.1:8265"},
            {"token_path": str(tmp_path / "another")},
            {"token_path": None},
            {"mark": str(strange), "token_path": str(strange / "token")},
            {"mark": str(link), "token_path": str(link / "token")},
            {"mark": "", "token_path": "token"},
            {"mark": f"{mark}/../../etc", "token_path": f"{mark}/../../etc/token"},
        ):
            storage.write_json(tmp_path / "cluster.json", vars(good) | change)
            assert cluster.find_running(tmp_path) is None, change
            cluster._forget(tmp_path / "cluster.json")
            assert (strange / "token").is_file() and (mark / "token").is_file(), change
    finally:
        link.unlink()


def test_no_cluster_is_started_with_a_token_that_others_read(tmp_path, token):
    token.chmod(0o644)
    spec = {"temp": str(tmp_path), "token": str(token), "cpus": 1, "resources": {}, "control": str(tmp_path / "control")}
    command = [sys.executable, "-m", "headrace.control.keeper", json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "mode 0644" in done.stderr
    assert not (tmp_path / "ray").exists()


def test_a_process_that_is_no_keeper_is_none_whatever_its_arguments(mark):
    assert not cluster._is_keeper(os.getpid(), "pytest")
