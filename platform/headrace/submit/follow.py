"""A job's output as it comes, over a stream that may break at any moment.

Ray's stream ends early while the job is at work (ray-project/ray#57002, #60665), so its end says nothing: the job's status is asked for,
and the stream opened again until the job is over. Every stream begins at the beginning of the log (dashboard/modules/job/utils.py,
`file_tail_iterator`), so what has been written is passed over by its length: no line is lost or told twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

import aiohttp

from headrace.control.exits import RunError
from headrace.submit.remote import Remote, RemoteJob

PAUSE_S = 1.0
PATIENCE_S = 120.0  # so long the cluster may be away
HEARTBEAT_S = 20.0  # a connection that died without a word is noticed


def follow(remote: Remote, submission_id: str, write: Callable[[str], None], seen: int = 0) -> RemoteJob:
    """Hand every piece of a job's output to `write`, once and in order, until the job is over; how it ended.

    Args:
        seen: characters at the beginning of the log that are not wanted.

    Raises:
        ConfigError: the cluster does not know the job, or refuses us.
        RunError: the cluster was away for `PATIENCE_S`.
    """
    heard = time.monotonic()
    while True:
        try:
            job = remote.known(submission_id)  # before the log: what a job wrote until it was over is then all there
            if not job.active:
                write(remote.log(submission_id)[seen:])
                return job
            heard = time.monotonic()
        except RunError:
            if time.monotonic() - heard > PATIENCE_S:
                raise
            time.sleep(PAUSE_S)
            continue
        seen = asyncio.run(_stream(remote, submission_id, write, seen))
        time.sleep(PAUSE_S)


async def _stream(remote: Remote, submission_id: str, write: Callable[[str], None], seen: int) -> int:
    """Write what one connection brings beyond the first `seen` characters; how many are seen when it ends, however it ends."""
    position = 0
    try:
        async for text in _pieces(remote, submission_id):
            position += len(text)
            if position > seen:
                write(text[-(position - seen) :])
                seen = position
    except (aiohttp.ClientError, OSError):
        pass  # the status says what it means
    return seen


async def _pieces(remote: Remote, submission_id: str) -> AsyncIterator[str]:
    path = f"/api/jobs/{quote(submission_id, safe='')}/logs/tail"
    limit = aiohttp.ClientTimeout(total=None, sock_connect=HEARTBEAT_S)
    async with (
        aiohttp.ClientSession(headers=remote.headers, timeout=limit) as session,
        session.ws_connect(f"{remote.address}{path}", heartbeat=HEARTBEAT_S, max_msg_size=0) as stream,
    ):
        async for message in stream:
            if message.type is aiohttp.WSMsgType.TEXT:
                yield str(message.data)
