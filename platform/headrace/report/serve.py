"""The run's page over HTTP, for a browser on this machine: it follows the run while it is on.

Loopback only, reads only, and two paths: the page and report.json. The page asks for itself every two seconds and takes over what is
new, so nothing is drawn twice in two languages, and nothing is loaded from anywhere else.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import xxhash

from headrace import storage
from headrace.config import ConfigError
from headrace.report.gather import gather
from headrace.report.page import render
from headrace.report.summary import summary_table

log = logging.getLogger("headrace")

LOOPBACK = "127.0.0.1"
HOSTS = {"127.0.0.1", "localhost", "[::1]"}  # [::1]: the other end of a tunnel
FRESH_S = 1.0  # at least, between two looks at the folder
SHARE = 0.2  # at most, of the time spent on looks
SCRIPT = (Path(__file__).parent / "live.js").read_text(encoding="utf-8")
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Latest:
    """The report as of a moment ago: looked at anew when somebody asks, as often as a fifth of the time allows."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._next = 0.0
        self._found = ("", b"", "")

    def __call__(self) -> tuple[str, bytes, str]:
        """The page, report.json, and a tag that is another whenever either is."""
        with self._lock:
            started = time.monotonic()
            if started >= self._next:
                report = gather(self._run)
                report["summary"] = [list(row) for row in summary_table(report)]
                page, content = render(report), storage.as_json(report)
                self._found = (page, content, f'"{xxhash.xxh3_64_hexdigest(page.encode() + content)}"')
                ended = time.monotonic()
                self._next = ended + max(FRESH_S, (ended - started) / SHARE)
            return self._found


def server(run: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the run's page that listens on loopback; `serve_forever` answers.

    Args:
        port: 0 takes a free one; `server_port` says which.

    Raises:
        ConfigError: the port is taken, or not this user's to take.
    """
    try:
        made = ThreadingHTTPServer((LOOPBACK, port), _handler(Latest(run)))
    except OSError as error:
        raise ConfigError(f"--port {port}: {error.strerror}; name another one, or leave it out for a free one.") from None
    made.daemon_threads = True
    return made


def _handler(latest: Callable[[], tuple[str, bytes, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "headrace", ""
        timeout = 30  # seconds for a request to come in whole

        def do_GET(self) -> None:
            if not self._is_for_us():
                return
            path = self.path.partition("?")[0]
            if path not in {"/", "/report.json"}:
                self._refuse(404, "only / and /report.json are here")
                return
            try:
                page, content, tag = latest()
            except Exception as error:  # the folder is being deleted, or a file of it is damaged
                log.warning("report: %s: %s", type(error).__name__, error)
                self._refuse(503, f"the run's folder cannot be read just now: {type(error).__name__}")
                return
            if self.headers.get("If-None-Match") == tag:
                self._send(304, b"", "text/plain", {"ETag": tag})
            elif path == "/":
                nonce = secrets.token_urlsafe(16)
                body = live(page, tag, nonce).encode()
                self._send(200, body, "text/html; charset=utf-8", {"ETag": tag, "Content-Security-Policy": POLICY.format(nonce=nonce)})
            else:
                self._send(200, content, "application/json", {"ETag": tag})

        def refuse_method(self) -> None:
            if self._is_for_us():
                self._refuse(405, "this page is only read", {"Allow": "GET"})

        do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = refuse_method

        def _is_for_us(self) -> bool:
            """Whether the browser was sent to this machine by name: another name that resolves to it is somebody else's page."""
            host = self.headers.get("Host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name.lower() not in HOSTS:
                self._refuse(403, "this page is for a browser on this machine: http://127.0.0.1")
                return False
            return True

        def _refuse(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
            self._send(status, f"{why}\n".encode(), "text/plain; charset=utf-8", headers or {})

        def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**HEADERS, **headers, "Content-Type": kind, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            log.debug(format, *arguments)

    return Handler


def live(page: str, tag: str, nonce: str) -> str:
    """The page with the script that keeps it up to date.

    Args:
        tag: of the page, an ETag.
        nonce: by which the browser tells our script from one that a text of the run might hold.
    """
    body, _, end = page.rpartition("</body>")
    status = f'<p id="live" data-tag="{tag[1:-1]}">live</p>'
    return f'{body}{status}\n<script nonce="{nonce}">\n{SCRIPT}</script></body>{end}'
