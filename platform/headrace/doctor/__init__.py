"""`headrace doctor`: whether a run would work here, and whether its cluster is closed to others; what to do where not."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from headrace import credentials
from headrace.artifact import StageError
from headrace.config import ConfigError
from headrace.control import cluster
from headrace.doctor import accelerators, dashboard, listeners, machine, versions
from headrace.doctor.finding import Finding, error, ok, warning
from headrace.model.compiled import compiler
from headrace.run import RunConfig, load_run

__all__ = ["Finding", "examine", "local_cluster"]


def examine(path: Path | None = None, address: str | None = None) -> Iterator[Finding]:
    """Every check, the quick ones first.

    The cluster that is asked is the one at `address`, else that of the configuration, else the run's own if it is up; else one is
    started as a run starts it, asked, and taken down.

    Args:
        path: a run's YAML; None = checks of the machine alone.
    """
    yield versions.python()
    yield from versions.packages()
    config, found = _configuration(path)
    yield from found
    total, available = machine.memory_limit()
    yield machine.memory(total, available, config.cluster.cores if config else os.cpu_count() or 1)
    yield machine.shared_memory(total)
    if config:
        yield machine.disk("run", config.folder)
    yield machine.disk("temporary", machine.temporary_folder())
    yield machine.descriptors()
    yield machine.clock()
    yield machine.compiler(compiler(), bool(config and config.train.compile))
    yield listeners.loopback()
    yield listeners.nodes()
    yield accelerators.gpus()
    yield from accelerators.reductions()
    address = address or (config.cluster.address if config else None)
    yield from _at(address) if address else _own(config)


def _configuration(path: Path | None) -> tuple[RunConfig | None, list[Finding]]:
    if path is None:
        return None, []
    try:
        config = load_run(path)
    except ConfigError as mistake:
        return None, [error("configuration", line, f"mend it: `headrace plan {path}` checks it.") for line in str(mistake).splitlines()]
    text = path.read_text(encoding="utf-8")
    held = [place for place, value in credentials.secret_values().items() if value in text]
    if held:
        return config, [
            error("configuration", f"{path} holds the value of {', '.join(held)}", "take it out, also of comments; then renew it.")
        ]
    return config, [ok("configuration", f"{path} is valid and holds no credential")]


def _at(address: str) -> Iterator[Finding]:
    """A cluster that is there already."""
    try:
        running = cluster.remote(address, "address")
        token = credentials.find_token()
    except ConfigError as mistake:
        yield from (error("token", line, "nothing was sent.") for line in str(mistake).splitlines())
        return
    faults = credentials.token_faults(token) if token else []
    yield from (warning("token", fault, "until then other users of this machine may use the cluster, too.") for fault in faults)
    if not faults:
        yield ok("token", f"{token.place}, {len(token.text.encode())} bytes" if token else "none, and the address is this machine's own")
    if unsafe := dashboard.in_the_clear(address):
        yield unsafe
    yield from _asked(running.address, token)


def _own(config: RunConfig | None) -> Iterator[Finding]:
    """A local cluster: the run's, or one that is started for the purpose."""
    running = cluster.find_running(config.folder / "control") if config else None
    if running:
        yield from local_cluster(running)
        return
    with tempfile.TemporaryDirectory(prefix="headrace-doctor-") as folder:
        control, started = Path(folder) / "control", time.monotonic()
        try:
            with cluster.Heartbeat(control):
                running = cluster.start_local(control, 1, 1)
                yield ok("cluster", f"a local one came up in {time.monotonic() - started:.0f} s")
                yield from local_cluster(running)
        except StageError as mistake:
            yield error("cluster", str(mistake), "what its log says is what to mend; a run would not start either.")
        finally:
            cluster.stop(control)


def local_cluster(running: cluster.Running) -> Iterator[Finding]:
    """A cluster that was started for a run."""
    assert running.token_path is not None
    token = credentials.read_token(Path(running.token_path), "the local cluster's token")
    faults = credentials.token_faults(token)
    yield from (error("token", fault, "stop the run, and start it again.") for fault in faults)
    if not faults:
        yield ok("token", f"the run's own, {len(token.text.encode())} bytes, mode 0600")
    yield from _asked(running.address, token)


def _asked(address: str, token: credentials.Token | None) -> Iterator[Finding]:
    closed = dashboard.closed(address, token.text if token else None)
    yield from closed
    if closed[0].check != "cluster":  # it answers
        yield dashboard.skew(address)
        yield dashboard.version(address, token.text if token else None)
