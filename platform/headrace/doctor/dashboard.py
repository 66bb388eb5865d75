"""A cluster's dashboard: whether it is closed to who has no token, of our version, and of our time."""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from headrace import credentials
from headrace.control.cluster import is_loopback
from headrace.doctor.finding import Finding, error, ok, warning

JOBS = "/api/jobs/"  # whoever may list jobs may start one
WRONG = "0" * 64
TIMEOUT_S = 10.0
SKEW_S = 5.0  # leases and cookies look at other machines' times


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; `status` None where there was none, `why` then."""

    status: int | None
    body: bytes = b""
    date: str | None = None
    why: str = ""


def ask(address: str, path: str, token: str | None = None) -> Answer:
    """GET `path` of the server at `address`, with a token or without."""
    url = urlsplit(address)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return Answer(response.status, response.read(1 << 20), response.headers.get("Date"))
    except (OSError, http.client.HTTPException) as problem:
        return Answer(None, why=str(problem) or type(problem).__name__)
    finally:
        connection.close()


def closed(address: str, token: str | None) -> list[Finding]:
    """Whether the Jobs API turns away who shows no token and who shows a wrong one, and lets ours in."""
    bare = ask(address, JOBS)
    if bare.status is None:
        return [
            error(
                "cluster", f"{address} does not answer ({bare.why})", "start it, or correct the address: http://HOST:PORT of its dashboard."
            )
        ]
    found = [_refusal("without a token", address, bare, 401), _refusal("with a wrong token", address, ask(address, JOBS, WRONG), 403)]
    if token is not None and all(each.level == "ok" for each in found):
        own = ask(address, JOBS, token)
        found.append(
            ok("with our token", f"GET {JOBS}: {own.status}")
            if own.status == 200
            else error(
                "with our token",
                f"GET {JOBS}: {own.status or own.why}",
                f"name the file of this cluster's token: {credentials.TOKEN_PATH}=FILE.",
            )
        )
    return found


def _refusal(check: str, address: str, answer: Answer, expected: int) -> Finding:
    if answer.status == expected:
        return ok(check, f"GET {JOBS}: {expected}")
    if answer.status == 200:
        return error(
            check,
            f"{address} answers: whoever reaches it runs code there",
            "stop that cluster now; start it again with RAY_AUTH_MODE=token and a token (`ray get-auth-token --generate`).",
        )
    return error(
        check, f"GET {JOBS}: {answer.status or answer.why}, {expected} expected", "is this the dashboard of a Ray >= 2.52 cluster?"
    )


def skew(address: str, now: float | None = None) -> Finding:
    """Our clock against the Date of the cluster's answer, which says whole seconds."""
    answer = ask(address, JOBS)
    try:
        theirs = parsedate_to_datetime(answer.date or "").timestamp()
    except ValueError:
        return warning("clock, cluster", f"{address} tells no time", "compare the clocks by hand; have NTP keep both.")
    apart = (time.time() if now is None else now) - theirs
    if abs(apart) > SKEW_S:
        return warning("clock, cluster", f"{abs(apart):.0f} s {'behind' if apart > 0 else 'ahead of'} ours", "have NTP keep both.")
    return ok("clock, cluster", f"within {SKEW_S:.0f} s of ours")


def version(address: str, token: str | None) -> Finding:
    """The cluster's Ray against ours: clients and clusters of different versions do not understand each other."""
    ours = importlib.metadata.version("ray")
    try:
        theirs = json.loads(ask(address, "/api/version", token).body)["ray_version"]
    except (ValueError, KeyError, TypeError):
        return warning("Ray, cluster", "it does not tell its version", f"see that it is {ours}, as here.")
    if theirs != ours:
        return error("Ray, cluster", f"{theirs}, here {ours}", "install the same version on both sides.")
    return ok("Ray, cluster", theirs)


def in_the_clear(address: str) -> Finding | None:
    """A word of warning where the token travels where others may listen."""
    url = urlsplit(address)
    if url.scheme == "https" or is_loopback(url.hostname):
        return None
    return warning(
        "transport", f"{address}: the token is sent in the clear", f"use a tunnel: ssh -L {url.port}:localhost:{url.port} HEAD, or https."
    )
