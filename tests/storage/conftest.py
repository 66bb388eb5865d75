"""Object stores on loopback ports, and a proxy before one of them that spoils answers."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from contextlib import contextmanager

import pytest

from headrace.storage import appended, mirror, object_store, stores
from headrace.storage import gs as google_storage

BUCKET = "mill-bucket"


def silent_handler():
    from werkzeug.serving import WSGIRequestHandler

    class Silent(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type, message, *args):
            pass

    return Silent


@contextmanager
def serving(application):
    """The port on which a WSGI application is served."""
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=silent_handler())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def forget_clients():
    object_store.connected.cache_clear()
    stores.store_of.cache_clear()


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """Mirrors in a private folder, none attached, before and after."""
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(mirror.ENVIRONMENT, raising=False)
    mirror.forget_all()
    yield tmp_path / "cache"
    appended.forget()
    mirror.forget_all()


class Faults:
    """Spoils what a store answers, as often as a test asks for it."""

    def __init__(self, application):
        self._application = application
        self._writing = threading.Lock()
        self.forget()

    def forget(self):
        self.every = {}  # kind of fault -> every which request that it can befall meets it
        self.refused = None  # (method, part of the path) that is answered with 403
        self.met = {}  # kind of fault -> how often
        self.asked = 0
        self.hidden = ()  # parts of keys that no listing shows: it is stale

    def __call__(self, environ, start_response):
        self.asked += 1
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if self.refused and method == self.refused[0] and self.refused[1] in path:
            return self._error(start_response, "403 Forbidden", "AccessDenied")
        kind = self._due(method)
        if kind == "busy":
            return self._error(start_response, "503 Slow Down", "SlowDown")
        if kind == "reset":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        if method == "PUT":
            with self._writing:  # moto looks and writes in two steps, S3 in one
                answer = b"".join(self._application(environ, start_response))
        else:
            answer = b"".join(self._application(environ, start_response))
        if kind == "lost" and method == "PUT":  # it was done, and nobody learns of it
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        return [
            answer[: len(answer) // 2] if kind == "short" and "list-type" not in environ["QUERY_STRING"] else self._stale(environ, answer)
        ]

    def _due(self, method):
        can = {"GET": ("busy", "reset", "short"), "PUT": ("busy", "reset", "lost")}.get(method, ("busy",))
        for kind in can:
            if self.every.get(kind) and self.asked % self.every[kind] == 0:
                self.met[kind] = self.met.get(kind, 0) + 1
                return kind
        return None

    def _stale(self, environ, answer):
        if "list-type" not in environ["QUERY_STRING"] or not self.hidden:
            return answer
        shown = []
        for piece in re.split(rb"(<Contents>.*?</Contents>|<CommonPrefixes>.*?</CommonPrefixes>)", answer, flags=re.S):
            if piece.startswith((b"<Contents>", b"<CommonPrefixes>")) and any(part.encode() in piece for part in self.hidden):
                self.met["stale"] = self.met.get("stale", 0) + 1
                piece = b" " * len(piece)
            shown.append(piece)
        return b"".join(shown)

    @staticmethod
    def _error(start_response, status, code):
        body = f"<Error><Code>{code}</Code><Message>told so by the test</Message></Error>".encode()
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture(scope="session")
def s3_server():
    """moto's S3 behind `Faults`, with the environment that leads to it."""
    pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'headrace[s3]'")
    moto = pytest.importorskip("moto.moto_server.werkzeug_app", reason="moto's server is not installed: pip install 'headrace[test]'")
    faults = Faults(moto.DomainDispatcherApplication(moto.create_backend_app))
    with serving(faults) as port:
        settings = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIexample",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        yield faults, settings


@pytest.fixture
def s3(s3_server, at_home, monkeypatch):
    """An empty bucket; its faults."""
    faults, settings = s3_server
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stores, "PAUSE_S", (0.001, 0.01))
    forget_clients()
    client = object_store.connected()
    client.create_bucket(Bucket=BUCKET)
    faults.forget()
    yield faults
    faults.forget()
    appended.forget()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    client.delete_bucket(Bucket=BUCKET)
    forget_clients()


@pytest.fixture
def keys():
    """A function: the keys in the bucket, in order."""

    def listed():
        pages = object_store.connected().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    return listed


@pytest.fixture(scope="session")
def bucket():
    return BUCKET


class GoogleServer:
    """The part of Google Cloud Storage's JSON API that its client asks for here: objects of one bucket, with generations and conditions."""

    def __init__(self):
        self._lock = threading.Lock()
        self.forget()

    def forget(self):
        self.objects = {}  # name -> {"generation", "content", "metadata"}
        self.generation = 0
        self.failures = []  # statuses of the next answers
        self.asked = 0

    def __call__(self, environ, start_response):
        from urllib.parse import unquote

        from werkzeug.wrappers import Request, Response

        request = Request(environ)
        path = environ["RAW_URI"].split("?")[0] if "RAW_URI" in environ else environ["PATH_INFO"]
        bucket, _, name = path.partition("/b/")[2].partition("/o")
        name = unquote(name.removeprefix("/"))
        with self._lock:
            self.asked += 1
            if self.failures:
                answer = self._error(self.failures.pop(0), "told so by the test")
            elif bucket != BUCKET:
                answer = self._error(404, "The specified bucket does not exist.")
            elif path.startswith("/upload/"):
                answer = self._upload(request)
            elif not name:
                answer = self._list(request.args)
            else:
                answer = self._object(request, name, path.startswith("/download/") or request.args.get("alt") == "media")
        status, content, headers = answer
        return Response(content, status, headers)(environ, start_response)

    def _upload(self, request):
        boundary = request.headers["Content-Type"].partition("boundary=")[2].strip("\"'").encode()
        first, second = (part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in request.get_data().split(b"--" + boundary)[1:3])
        about = json.loads(first)
        refused = self._unmet(request.args, about["name"])
        if refused:
            return refused
        self.generation += 1
        self.objects[about["name"]] = {"generation": self.generation, "content": second, "metadata": about.get("metadata", {})}
        return self._json(self._resource(about["name"]))

    def _object(self, request, name, media):
        if name not in self.objects:
            return self._error(404, f"No such object: {BUCKET}/{name}")
        refused = self._unmet(request.args, name)
        if refused:
            return refused
        if request.method == "DELETE":
            del self.objects[name]
            return 204, b"", {}
        return (
            (200, self.objects[name]["content"], {"Content-Type": "application/octet-stream"})
            if media
            else self._json(self._resource(name))
        )

    def _list(self, arguments):
        prefix, delimiter = arguments.get("prefix", ""), arguments.get("delimiter")
        found = sorted(name for name in self.objects if name.startswith(prefix))
        if not delimiter:
            return self._json({"items": [self._resource(name) for name in found]})
        deeper = [name for name in found if delimiter in name[len(prefix) :]]
        prefixes = sorted({prefix + name[len(prefix) :].split(delimiter)[0] + delimiter for name in deeper})
        return self._json({"items": [self._resource(name) for name in found if name not in deeper], "prefixes": prefixes})

    def _unmet(self, arguments, name):
        wanted = arguments.get("ifGenerationMatch")
        if wanted is None or int(wanted) == (self.objects[name]["generation"] if name in self.objects else 0):
            return None
        return self._error(412, "At least one of the pre-conditions you specified did not hold.")

    def _resource(self, name):
        found = self.objects[name]
        described = {"kind": "storage#object", "bucket": BUCKET, "name": name, "generation": str(found["generation"])}
        moment = "2026-01-01T00:00:00.000Z"
        return {**described, "metadata": found["metadata"], "size": str(len(found["content"])), "updated": moment, "timeCreated": moment}

    def _error(self, status, message):
        return self._json({"error": {"code": status, "message": message, "errors": [{"message": message}]}}, status)

    @staticmethod
    def _json(value, status=200):
        return status, json.dumps(value).encode(), {"Content-Type": "application/json"}


@pytest.fixture(scope="session")
def google_server():
    pytest.importorskip("google.cloud.storage", reason="google-cloud-storage is not installed: pip install 'headrace[gs]'")
    server = GoogleServer()
    with serving(server) as port:
        yield server, port


@pytest.fixture
def gs(google_server, at_home, monkeypatch):
    """An empty bucket of Google Cloud Storage; its server."""
    server, port = google_server
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(stores, "PAUSE_S", (0.001, 0.01))
    google_storage.connected.cache_clear()
    stores.store_of.cache_clear()
    server.forget()
    yield server
    appended.forget()
    google_storage.connected.cache_clear()
    stores.store_of.cache_clear()
