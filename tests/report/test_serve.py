"""The served page: to browsers on this machine alone, read only, and up to date without a reload."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import threading
import time

import pytest

from headrace.config import ConfigError
from headrace.report.serve import server

PATIENCE_S = 60.0


@pytest.fixture
def served(folder):
    """A run in training, and the port of its page."""
    folder.data()
    folder.trained(steps=3)
    folder.event(10, "cluster", "finished", seconds=10.0, address="http://127.0.0.1:1")
    made = server(folder.path)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield folder, made.server_port
    made.shutdown()
    thread.join()
    made.server_close()


def ask(port, path="/", method="GET", **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode()


def test_the_page_and_its_numbers_are_served_and_a_tag_tells_whether_they_changed(served):
    folder, port = served
    status, headers, body = ask(port)
    (nonce,) = re.findall('<script nonce="([^"]+)">', body)
    assert status == 200 and "step 3 of 20" in body and f"script-src 'nonce-{nonce}'" in headers["Content-Security-Policy"]
    status, headers, body = ask(port, "/report.json")
    assert status == 200 and json.loads(body)["training"]["steps"] == 3
    assert ask(port, "/", If_None_Match=headers["ETag"])[0] == 304
    folder.trained(steps=5)
    deadline = time.monotonic() + PATIENCE_S
    while ask(port, "/", If_None_Match=headers["ETag"])[0] == 304:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (folder.path / "report.html").exists(), "who reads a run does not write to it"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "0.0.0.0", "localhost.evil.example:8080"]
)
def test_another_name_that_leads_here_is_refused(served, host):
    status, _, body = ask(served[1], Host=host)
    assert status == 403 and "step" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9999", "127.0.0.1", "[::1]:1"])
def test_this_machine_is_answered_by_any_of_its_names_also_through_a_tunnel(served, host):
    assert ask(served[1], Host=host)[0] == 200


@pytest.mark.parametrize(
    "path", ["/config.yaml", "/../config.yaml", "/%2e%2e/config.yaml", "//etc/passwd", "/report.json/..", "/events.jsonl", "*"]
)
def test_nothing_but_the_page_and_its_numbers_is_there(served, path):
    status, _, body = ask(served[1], path)
    assert status == 404 and "steps: 20" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_it_is_only_read(served, method):
    status, headers, _ = ask(served[1], method=method)
    assert status == 405 and headers["Allow"] == "GET"


def test_only_loopback_listens(served):
    import psutil

    own = [each.laddr for each in psutil.Process().net_connections("tcp") if each.status == "LISTEN" and each.laddr.port == served[1]]
    assert [address.ip for address in own] == ["127.0.0.1"]


def test_a_port_that_is_taken_is_named(served):
    with pytest.raises(ConfigError, match=f"--port {served[1]}: .*free one"):
        server(served[0].path, served[1])


class Browser:
    """Headless Chromium, asked through the pipe of its remote debugging: JSON messages that end in a zero byte."""

    def __init__(self, program, home):
        (here, theirs), (them, ours) = os.pipe(), os.pipe()  # it reads from `here` what we write to `theirs`
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        options = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe", *sandbox]

        def as_it_expects():  # it reads from descriptor 3 and writes to 4; both may be in use by ours, so by way of higher ones
            reading, writing = os.dup2(here, 100), os.dup2(ours, 101)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self._process = subprocess.Popen(
            [program, *options, f"--user-data-dir={home}", "about:blank"],
            preexec_fn=as_it_expects,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(home)},
        )
        os.close(here)
        os.close(ours)
        self._write, self._read = os.fdopen(theirs, "wb", 0), os.fdopen(them, "rb")
        self._number, self._rest, self._session = 0, b"", None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method, **values):
        self._number += 1
        message = {"id": self._number, "method": method, "params": values} | ({"sessionId": self._session} if self._session else {})
        self._write.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                got = self._read.read1(1 << 16)
                assert got, "the browser ended"
                self._rest += got
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, script):
        """What a script in the page gives."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def until(self, script):
        deadline = time.monotonic() + PATIENCE_S
        while not (found := self.value(script)):
            assert time.monotonic() < deadline, (script, self.value("document.documentElement.innerText"))
            time.sleep(0.1)
        return found

    def close(self):
        self._process.terminate()
        self._process.wait(20)
        self._write.close()
        self._read.close()


@pytest.fixture
def browser(program, tmp_path):
    made = Browser(program("chromium"), tmp_path / "browser")
    yield made
    made.close()


def test_a_browser_shows_each_new_step_without_a_reload(served, browser):
    folder, port = served
    browser.ask("Page.navigate", url=f"http://127.0.0.1:{port}/")
    browser.until("document.body && document.body.innerText.includes('step 3 of 20')")
    browser.value("window.sameVisit = true; document.querySelectorAll('details').forEach(each => each.open = true)")
    opened = browser.value("document.querySelectorAll('details[open]').length")
    folder.trained(steps=7)
    folder.event(
        40, "train", "progress", done=7, total=20, unit="steps", elapsed_s=20.0, left_s=65.0, tokens_per_s=50.0, tokens=700, loss=0.9
    )
    browser.until("document.body.innerText.includes('step 7 of 20')")
    assert "7 of 20 steps, loss 0.900, 700 tokens, 50 tokens/s, 1 min 5 s left" in browser.value("document.querySelector('.now').innerText")
    assert browser.value("window.sameVisit") is True, "the page was loaded anew"
    assert browser.value("document.querySelectorAll('details[open]').length") == opened > 0
    assert browser.value("document.getElementById('live').textContent") == "live"
    assert browser.value("performance.getEntriesByType('resource').every(each => new URL(each.name).origin === location.origin)")
