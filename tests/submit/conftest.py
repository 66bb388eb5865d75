"""A dashboard of the tests' own: answers over HTTP what a test tells it to, and keeps what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Dashboard:
    """`answers`: (method, path) -> (status, body), or a function of the request's body that gives both; `asked`: what came, in order.

    What nothing is said of is answered by `otherwise`, a function of method, path and body."""

    def __init__(self) -> None:
        self.answers = {}
        self.asked = []
        self.otherwise = lambda method, path, body: (404, b"no such page")
        self.token = None  # asked for if set, as Ray does: 401 without one, 403 with another
        dashboard = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                shown = self.headers.get("Authorization")
                dashboard.asked.append((self.command, self.path, shown, body))
                if dashboard.token and shown is None:
                    status, content = 401, b"Unauthorized: Missing authentication token"
                elif dashboard.token and shown != f"Bearer {dashboard.token}":
                    status, content = 403, b"Forbidden: Invalid authentication token"
                elif (self.command, self.path) in dashboard.answers:
                    found = dashboard.answers[self.command, self.path]
                    status, content = found(body) if callable(found) else found
                else:
                    status, content = dashboard.otherwise(self.command, self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}"


@pytest.fixture
def no_token(monkeypatch, tmp_path) -> None:
    """This machine has no token, wherever Ray looks for one."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def dashboard(no_token) -> Iterator[Dashboard]:
    """One that answers nothing yet."""
    found = Dashboard()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()
