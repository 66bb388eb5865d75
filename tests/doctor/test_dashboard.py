import importlib.metadata
import re
import time

import pytest

from headrace.doctor import dashboard

TOKEN = "a" * 64


def levels(findings):
    return [(finding.check, finding.level) for finding in findings]


def test_a_closed_cluster(server):
    address = server({"none": 401, "wrong": 403, "ours": 200})
    assert levels(dashboard.closed(address, TOKEN)) == [("without a token", "ok"), ("with a wrong token", "ok"), ("with our token", "ok")]


def test_an_open_cluster_is_an_error_and_our_token_is_not_shown_to_it(server):
    found = dashboard.closed(server({"none": 200, "wrong": 200, "ours": 200}), TOKEN)
    assert levels(found) == [("without a token", "error"), ("with a wrong token", "error")]
    assert "runs code there" in found[0].found and "RAY_AUTH_MODE=token" in found[0].do


def test_a_token_of_another_cluster_and_a_server_that_is_no_ray(server):
    found = dashboard.closed(server({"none": 401, "wrong": 403, "ours": 403}), TOKEN)
    assert levels(found)[-1] == ("with our token", "error") and "RAY_AUTH_TOKEN_PATH" in found[-1].do
    assert TOKEN not in str(found)
    assert [level for _, level in levels(dashboard.closed(server({"none": 404, "wrong": 404, "ours": 404}), TOKEN))] == ["error", "error"]


def test_nobody_answers():
    (found,) = dashboard.closed("http://127.0.0.1:1", TOKEN)
    assert (found.check, found.level) == ("cluster", "error") and "does not answer" in found.found


def test_clocks_that_are_apart(server):
    told = "Sun, 06 Nov 1994 08:49:37 GMT"
    address = server({"none": 401}, date=told)
    assert dashboard.skew(address).level == "warning"
    assert "behind ours" in dashboard.skew(address).found
    assert dashboard.skew(address, now=784111777.0 + 2).level == "ok"
    assert dashboard.skew(server({"none": 401}, date="tomorrow")).level == "warning"
    assert re.fullmatch(r"(3599|3600) s ahead of ours", dashboard.skew(server({"none": 401}), now=time.time() - 3600).found)


def test_another_ray(server):
    ours = importlib.metadata.version("ray")
    closed = {"none": 401, "wrong": 403, "ours": 200}
    assert dashboard.version(server(closed, version=ours), TOKEN).level == "ok"
    assert dashboard.version(server(closed, version="1.0"), TOKEN).level == "error"
    assert dashboard.version(server(closed, version=ours), None).level == "warning"


@pytest.mark.parametrize(
    ("address", "warned"), [("http://10.0.0.1:8265", True), ("https://10.0.0.1:8265", False), ("http://[::1]:1", False)]
)
def test_a_token_in_the_clear(address, warned):
    found = dashboard.in_the_clear(address)
    assert (found is not None) == warned
    assert not warned or "ssh -L 8265:localhost:8265" in found.do
