import os
import socket

import psutil

from headrace.doctor import listeners
from headrace.doctor.listeners import Listener

OPEN, OURS = Listener("0.0.0.0", 6379, 1, "gcs_server"), Listener("127.0.0.1", 6380, 1, "gcs_server")


def test_this_machine_reaches_itself():
    assert listeners.loopback().level == "ok"


def test_what_this_process_listens_on():
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        assert (host, port, os.getpid()) in [each[:3] for each in listeners.of_process(psutil.Process())]
    assert port not in [each.port for each in listeners.of_process(psutil.Process())]


def test_a_node_that_listens_beyond_this_machine_is_told_and_without_a_token_an_error():
    closed = listeners.nodes([("gcs_server", {}, [OURS])])
    guarded = listeners.nodes([("gcs_server", {"RAY_AUTH_MODE": "token"}, [OPEN, OURS])])
    bare = listeners.nodes([("gcs_server", {"RAY_AUTH_MODE": "disabled"}, [OPEN]), ("raylet", {"RAY_AUTH_MODE": "token"}, [OPEN])])
    assert [found.level for found in (closed, guarded, bare)] == ["ok", "warning", "error"]
    assert "gcs_server on 6379" in guarded.found and "6380" not in guarded.found
    assert "raylet" not in bare.found and "RAY_AUTH_MODE=token" in bare.do
