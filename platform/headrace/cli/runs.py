"""Verbs that bring a run forward."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headrace.cli.arguments import AsJson, ConfigFile, Overrides, named_folder
from headrace.terminal import print_summary, print_table, tracked

CONFIGS = Path(__file__).resolve().parents[3] / "jobs" / "configs"


def run(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """The whole flow: data, training, scores, report. The same command again goes on where it stopped."""
    _bring(config, overrides, "scores", as_json)


def data(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """The data stages only: raw files to packed tokens."""
    _bring(config, overrides, "data", as_json)


def train(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Data and training, without scores."""
    _bring(config, overrides, "train", as_json)


def evaluate(
    folder: Annotated[Path, typer.Argument(parser=named_folder, help="A run's folder, or that of a model in the Hugging Face format.")],
    text: Annotated[Path | None, typer.Option(parser=named_folder, help="For a model: the run whose text it is scored on.")] = None,
    name: Annotated[str | None, typer.Option(help="For a model: what to call it; its folder's name if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score every checkpoint of a run that has no score yet; or a published model, on the held-out text of a run."""
    from headrace import storage
    from headrace.config import ConfigError
    from headrace.evaluate.watcher import forget_failures
    from headrace.run import open_run

    if text is not None:
        _score_outside(folder, text, name or folder.resolve().name, as_json)
        return
    if storage.present(folder / "config.json"):
        raise ConfigError(f"{folder}: a model in the Hugging Face format; name the run whose held-out text it is scored on: --text RUN.")
    if not storage.present(folder / "config.yaml"):
        raise ConfigError(f"{folder}: neither a run (config.yaml) nor a model (config.json) is there; models are never fetched.")
    config = open_run(folder)
    forget_failures(folder)
    finish(config, "scores", as_json)


def quickstart(
    out: Annotated[str, typer.Option(help="The run's folder: a path, s3:// or gs://.")] = "runs/quickstart",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """The whole flow on text that every machine has: the sources, docstrings, descriptions and licences of its Python."""
    from headrace import storage
    from headrace.config import expand_environment, load_yaml, override, validate
    from headrace.credentials import refuse_credentials
    from headrace.ingest.python_installation import collect
    from headrace.run import RunConfig, check_run

    values = override(load_yaml(CONFIGS / "quickstart.yaml"), [f"out={out}"])
    for source in values["sources"]:
        source["path"] = str((storage.folder(out) if "://" in out else Path(out)) / "raw" / f"{source['name']}.jsonl.zst")
    written = override(values, overrides or [])
    refuse_credentials(written, expand_environment(written), "quickstart.yaml")
    config = validate(RunConfig, expand_environment(written), "quickstart.yaml")
    check_run(config, "quickstart.yaml")
    collect(storage.writable_folder(config.folder, "out") / "raw")
    finish(config, "scores", as_json)


def init(path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("headrace.yaml")) -> None:
    """Write a commented YAML to start from."""
    from headrace.config import ConfigError

    if path.exists():
        raise ConfigError(f"{path}: exists already; name another file, or move it away.")
    shutil.copyfile(CONFIGS / "own.yaml", path)
    print(f"{path}: written. Name your files in it, then: headrace plan {path}; headrace run {path}")


def plan(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """What a run would do, need and take: layout, parameters, token budget, disk, time. Starts nothing."""
    from headrace.plan import make_plan, print_plan
    from headrace.run import load_run

    made = make_plan(load_run(config, overrides or []))
    print(json.dumps(made, indent=1)) if as_json else print_plan(made, Console())


def _bring(path: Path, overrides: list[str] | None, upto: str, as_json: bool) -> None:
    from headrace.run import load_run

    finish(load_run(path, overrides or []), upto, as_json)


def finish(config: Any, upto: Any, as_json: bool) -> None:
    from headrace.control.controller import run_on_cluster
    from headrace.control.exits import INTERRUPTED, RunError
    from headrace.report import write_report

    try:
        worked = run_on_cluster(config, upto)
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command goes on from here", INTERRUPTED) from None
    if not worked:
        print("everything is done already; nothing was started", file=sys.stderr)
    written = write_report(config.folder)
    print(json.dumps(written, indent=1)) if as_json else print_summary(config.folder, written)


def _score_outside(folder: Path, run: Path, name: str, as_json: bool) -> None:
    from headrace import storage
    from headrace.evaluate.external import external_path, score_external
    from headrace.inspection import current
    from headrace.report import beside_newest, write_report
    from headrace.run import open_run

    config = open_run(run).evaluate
    result = score_external(folder, current(run, "tokens").folder, config, external_path(run, name), tracked)
    written = write_report(run)
    if as_json:
        print(json.dumps(result, indent=1))
        return
    head, *rows = beside_newest(result["metrics"], name, written)
    print_table(head, rows)
    print(f"report  {storage.name(run.absolute() / 'report.html')}")
