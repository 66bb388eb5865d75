"""Verbs that show how a run is getting on: its page, copies of its numbers for other tools, and the monitoring of its cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.arguments import AsJson, RunFolder
from headrace.terminal import print_summary


def report(
    folder: RunFolder,
    serve: Annotated[bool, typer.Option("--serve", help="Serve the page, which follows the run, to a browser on this machine.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --serve; 0 takes a free one.")] = 0,
    tensorboard: Annotated[Path | None, typer.Option(help="Copy the run's numbers into event files in this folder.")] = None,
    mlflow: Annotated[str | None, typer.Option(help="Copy them to this tracking server: http://HOST:PORT or sqlite:///FILE.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write report.json and report.html anew from what the run's folder holds; or serve them, or copy the run's numbers to other tools."""
    from headrace.config import ConfigError
    from headrace.observe.copies import tracking_uri
    from headrace.report import write_report
    from headrace.run import open_run

    config = open_run(folder)
    if mlflow is not None:
        try:
            tracking_uri(mlflow)
        except ValueError as error:
            raise ConfigError(f"--mlflow: {error}.") from None
    copies = [("tensorboard", str(tensorboard.absolute()))] if tensorboard else []
    copies += [("mlflow", mlflow)] if mlflow else []
    if copies:
        _copy(folder.absolute(), copies, config.train.steps, as_json)
    elif serve:
        _serve(folder, port, as_json)
    else:
        written = write_report(folder)
        print(json.dumps(written, indent=1)) if as_json else print_summary(folder, written)


def monitor(
    folder: RunFolder,
    out: Annotated[Path, typer.Option(help="An empty folder, or one to be made.")] = Path("monitoring"),
    discovery: Annotated[
        Path | None, typer.Option(help="Ray's prom_metrics_service_discovery.json; the run's own local cluster's if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a configuration of Prometheus with alert rules, and one of Grafana with dashboards, for the cluster that a run is on."""
    from headrace.observe.monitoring import targets_of, write_monitoring
    from headrace.run import open_run

    open_run(folder)
    command = write_monitoring(out, discovery or targets_of(folder))
    print(json.dumps({"folder": str(out.absolute()), "prometheus": command}) if as_json else f"{out}: written. Start it with:\n  {command}")


def _serve(folder: Path, port: int, as_json: bool) -> None:
    from headrace.report.serve import server

    made = server(folder, port)
    url = f"http://127.0.0.1:{made.server_port}/"
    print(json.dumps({"url": url}) if as_json else f"{url}  (Ctrl-C ends it)", flush=True)
    try:
        made.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        made.server_close()


def _copy(folder: Path, copies: list[tuple[str, str]], steps: int, as_json: bool) -> None:
    from headrace.observe.copies import Copy

    made = []
    for kind, target in copies:
        copy = Copy(folder, kind, target)
        made.append({"kind": kind, "target": target, "points": copy.update()})
        copy.close(steps)
    if as_json:
        print(json.dumps(made))
        return
    for line in made:
        print(f"{line['kind']}: {line['points']:,} new points in {line['target']}")
