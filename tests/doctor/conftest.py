"""A server that stands where a cluster's dashboard would: closed, open, of another time or version."""

import http.server
import json
import threading

import pytest

TOKEN = "a" * 64


@pytest.fixture
def server():
    """A function that starts an HTTP server on loopback which answers by what token it is shown, and gives its address."""
    started = []

    def start(answers, date=None, version=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                shown = self.headers.get("Authorization")
                status = answers["none" if shown is None else "ours" if shown == f"Bearer {TOKEN}" else "wrong"]
                self.send_response_only(status)
                self.send_header("Date", date or self.date_time_string())
                self.end_headers()
                self.wfile.write(json.dumps({"ray_version": version} if status == 200 else []).encode())

            def log_message(self, *_):
                pass

        serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        started.append(serving)
        return f"http://127.0.0.1:{serving.server_port}"

    yield start
    for serving in started:
        serving.shutdown()
        serving.server_close()
