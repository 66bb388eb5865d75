"""Following a job's log over streams that break: no line lost, none told twice, and the job's own end."""

from __future__ import annotations

import asyncio
import threading

import pytest
from aiohttp import web

from headrace.config import ConfigError
from headrace.control.exits import RunError
from headrace.submit import follow
from headrace.submit.remote import Remote

LOG = "".join(f"line {number}: größer als {number * 7919} → weiter\n" for number in range(200))


class Cluster:
    """A Jobs API whose job writes `LOG` a piece at a time, and whose every stream ends as `cuts` says before the job is over.

    cuts: one for each stream: (characters that the log has grown to by then, how the stream ends: "closed" in order, "broken" without a
    word, "refused" before it begins).
    """

    def __init__(self, cuts, ended="SUCCEEDED", exit_code=0):
        self.cuts, self.ended, self.exit_code = list(cuts), ended, exit_code
        self.streams = 0
        self.failures = 0  # so many looks at the job fail first

    async def job(self, _request):
        if self.failures:
            self.failures -= 1
            return web.Response(status=500, text="no leader")
        over = self.streams > len(self.cuts)
        values = {"submission_id": "j", "status": self.ended if over else "RUNNING", "driver_exit_code": self.exit_code if over else None}
        return web.json_response(values)

    async def log(self, _request):
        return web.json_response({"logs": LOG})

    async def tail(self, request):
        self.streams += 1
        if self.streams > len(self.cuts):
            return web.Response(status=404)  # over: nothing to follow
        grown, how = self.cuts[self.streams - 1]
        if how == "refused":
            return web.Response(status=500)
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        for begin in range(0, grown, 97):  # pieces end anywhere, in the middle of a line, too
            await stream.send_str(LOG[begin : min(begin + 97, grown)])
        if how == "broken":
            request.transport.abort()
        return stream


@pytest.fixture
def serve(monkeypatch):
    """A function that puts a Cluster on a free port of loopback; its Remote."""
    monkeypatch.setattr(follow, "PAUSE_S", 0.01)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runners = []

    async def start(cluster):
        app = web.Application()
        app.add_routes([web.get("/api/jobs/j", cluster.job), web.get("/api/jobs/j/logs", cluster.log)])
        app.add_routes([web.get("/api/jobs/j/logs/tail", cluster.tail)])
        runners.append(web.AppRunner(app))
        await runners[-1].setup()
        site = web.TCPSite(runners[-1], "127.0.0.1", 0)
        await site.start()
        return Remote(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}")

    yield lambda cluster: asyncio.run_coroutine_threadsafe(start(cluster), loop).result()
    for runner in runners:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize(
    "cuts",
    [
        [(len(LOG), "closed")],  # unbroken
        [(1000, "closed"), (1000, "closed"), (5001, "closed")],  # ends in order while the job is at work, once with nothing new
        [(1003, "broken"), (0, "refused"), (4000, "broken"), (7, "broken")],  # and a stream that comes less far than the one before
    ],
    ids=["unbroken", "closed early", "broken"],
)
def test_every_character_comes_once(serve, cuts):
    cluster = Cluster(cuts)
    pieces = []
    ended = follow.follow(serve(cluster), "j", pieces.append)
    assert "".join(pieces) == LOG
    assert (ended.status, ended.code) == ("SUCCEEDED", 0)
    assert cluster.streams == len(cuts) + 1


def test_the_end_is_the_job_s_own_and_a_cluster_may_be_away_for_a_while(serve):
    cluster = Cluster([(500, "closed")], ended="FAILED", exit_code=75)
    cluster.failures = 3
    pieces = []
    assert follow.follow(serve(cluster), "j", pieces.append, seen=480).code == 75
    assert "".join(pieces) == LOG[480:]


def test_a_cluster_that_stays_away_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(follow, "PATIENCE_S", 0.1)
    cluster = Cluster([])
    cluster.failures = 10**6
    with pytest.raises(RunError, match=r"could not do it \(500\): no leader"):
        follow.follow(serve(cluster), "j", lambda text: None)


def test_a_job_that_nobody_knows_is_not_waited_for(serve):
    with pytest.raises(ConfigError, match="no job 'other'"):
        follow.follow(serve(Cluster([])), "other", lambda text: None)
