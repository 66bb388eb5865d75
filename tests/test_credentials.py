import secrets

import pytest
import yaml

from headrace.config import ConfigError
from headrace.credentials import find_token, read_token, refuse_credentials, secret_values, token_faults
from headrace.run import load_run

SECRET = "canary-" + secrets.token_hex(16)


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text(secrets.token_hex(32) + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """A function that loads a run's YAML, overrides on top, and gives the error's text."""
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    monkeypatch.setenv("PLACE", f"/data/{SECRET}")

    def load(*overrides, **values):
        path = tmp_path / "run.yaml"
        source = {"name": "mill", "kind": "prose", "path": "raw/*.jsonl"}
        path.write_text(yaml.safe_dump({"out": "run", "sources": [source]} | values))
        with pytest.raises(ConfigError) as raised:
            load_run(path, overrides)
        return str(raised.value)

    return load


def test_the_token_is_found_as_ray_finds_it(token, tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.credentials.DEFAULT_TOKEN", tmp_path / "none")
    assert find_token({}) is None
    found = find_token({"RAY_AUTH_TOKEN_PATH": str(token)})
    assert (found.text, found.path) == (token.read_text().strip(), token)
    assert find_token({"RAY_AUTH_TOKEN": "mine", "RAY_AUTH_TOKEN_PATH": str(token)}).text == "mine"
    monkeypatch.setattr("headrace.credentials.DEFAULT_TOKEN", token)
    assert find_token({}).text == found.text
    assert found.text not in repr(found)
    with pytest.raises(ConfigError, match=r"RAY_AUTH_TOKEN_PATH = '.*none': the token cannot be read .*name the file"):
        find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")})


def test_a_token_that_protects_nothing_is_told_with_the_way_out(token):
    assert token_faults(read_token(token, "it")) == []
    token.chmod(0o640)
    (fault,) = token_faults(read_token(token, "it"))
    assert "mode 0640" in fault and f"chmod 600 {token}" in fault
    token.chmod(0o600)
    token.write_text("x" * 31)
    (fault,) = token_faults(read_token(token, "it"))
    assert "31 bytes, fewer than 32" in fault and "x" * 31 not in fault


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("${env:CANARY_SECRET}/a.jsonl", r"${env:CANARY_SECRET} is named as a credential"),
        ("${env:PLACE}/a.jsonl", "it holds the value of CANARY_SECRET"),
        (f"/data/{SECRET}", "it holds the value of CANARY_SECRET"),
        (f"s3://key:{SECRET}@bucket/a", "the URL names a user"),
        (f"https://me:{SECRET}@host/a", "the URL names a user"),
        (f"https://host/a?X-Amz-Signature={SECRET}", "the URL holds a signature"),
        (f"gs://bucket/a?x=1&access_token={SECRET}", "the URL holds a signature"),
    ],
)
def test_a_credential_in_a_source_is_refused_and_not_shown(refused, path, why):
    said = refused(sources=[{"name": "mill", "kind": "prose", "path": path}])
    assert f"sources.0.path: {why}" in said and "RAY_AUTH_TOKEN_PATH" in said and SECRET not in said


def test_every_place_is_told_at_once_overrides_included(refused):
    said = refused("seed=${env:CANARY_SECRET}", f"cluster.address=http://u:{SECRET}@h:1", tokens={"tokenizer": SECRET})
    assert [line.split(": ")[1] for line in said.splitlines()] == ["seed", "tokens.tokenizer", "cluster.address"]
    assert SECRET not in said


def test_the_cluster_s_token_in_a_configuration_is_refused(refused, token, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    said = refused(out=f"runs/{token.read_text().strip()}")
    assert f"out: it holds the value of {token}" in said and token.read_text().strip() not in said


def test_paths_names_and_globs_are_no_credentials(tmp_path, monkeypatch):
    monkeypatch.setenv("SSH_KEY", str(tmp_path))  # the path of one
    monkeypatch.setenv("SHORT_KEY", "mill")
    values = {"out": f"{tmp_path}/run", "path": ["s3://bucket/a?.jsonl", "/data/me@home/*.txt", "${env:HOME}/mill", "s3://b/x@y"]}
    refuse_credentials(values, values, "run.yaml")
    assert not {"SSH_KEY", "SHORT_KEY"} & set(secret_values())
