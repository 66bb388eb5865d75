"""Prometheus and Grafana for the cluster that a run is on: configuration to start them with, and where Ray says what there is to scrape."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import headrace
from headrace import storage
from headrace.config import ConfigError

OBSERVABILITY = Path(headrace.__file__).resolve().parents[2] / "cluster" / "observability"
DISCOVERY = "prom_metrics_service_discovery.json"  # Ray's, in its temporary folder: one entry, with the address of every node
HERE = f"/tmp/ray/{DISCOVERY}"  # where the files in `cluster/observability` expect it
DASHBOARDS = "/etc/headrace/dashboards"  # and where they expect these


def targets_of(run: Path) -> Path:
    """What Prometheus scrapes for a run's own local cluster: the same name whenever the cluster comes up, absent while it is down."""
    return storage.machine(run / "control") / DISCOVERY


def link_targets(control: Path, ray: Path) -> None:
    """Have that name lead to the discovery file of the cluster whose temporary folder is `ray`."""
    (control / DISCOVERY).unlink(missing_ok=True)
    (control / DISCOVERY).symlink_to(ray / DISCOVERY)


def unlink_targets(control: Path, ray: Path) -> None:
    """Take the name away again, unless it leads to another cluster by now."""
    with contextlib.suppress(OSError):
        if (control / DISCOVERY).readlink() == ray / DISCOVERY:
            (control / DISCOVERY).unlink()


def write_monitoring(out: Path, discovery: Path) -> str:
    """Write into the folder `out`: prometheus.yml, alerts.yml, Grafana's provisioning and dashboards; the command that starts Prometheus.

    Args:
        discovery: Ray's file of targets, which need not be there yet.

    Raises:
        ConfigError: the folder is not empty, or headrace is not installed from its source folder.
    """
    if not OBSERVABILITY.is_dir():
        raise ConfigError(f"{OBSERVABILITY}: not there; install headrace from its source folder with `pip install -e .`.")
    out = out.expanduser().absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: not an empty folder; name one that is not there yet.")
    for path in sorted(OBSERVABILITY.rglob("*")):
        if path.suffix in {".yml", ".json"}:
            text = path.read_text(encoding="utf-8").replace(HERE, str(discovery.absolute())).replace(DASHBOARDS, str(out / "dashboards"))
            copy = out / path.relative_to(OBSERVABILITY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text, encoding="utf-8")
    parts = [f"--config.file={out / 'prometheus.yml'}", f"--storage.tsdb.path={out / 'data'}", "--web.listen-address=127.0.0.1:9090"]
    return shlex.join(["prometheus", *parts])
