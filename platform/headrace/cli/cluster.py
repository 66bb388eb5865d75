"""Verbs about the machines that runs go to."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.arguments import AsJson, Overrides

app = typer.Typer(no_args_is_help=True, help="Files that start a cluster: made from one short spec, and checked without a cloud.")


@app.command()
def render(
    spec: Annotated[Path, typer.Argument(help="The cluster's YAML; jobs/configs/cluster.yaml is a commented one.")],
    target: Annotated[str, typer.Option(help="aws, gcp, azure, kuberay or local.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the files; without it they go to stdout.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the files of a target; they are checked as `validate` does."""
    from headrace.cluster.render import joined
    from headrace.cluster.render import render as make
    from headrace.cluster.spec import TARGETS, load_spec
    from headrace.cluster.validate import validate_text
    from headrace.config import ConfigError

    if target not in TARGETS:
        raise ConfigError(f"--target = {target!r}: expected one of {', '.join(TARGETS)}.")
    files = make(load_spec(spec, target, overrides or []), target)
    if found := [line for name, text in files.items() for line in validate_text(text, name).lines()]:
        raise ConfigError(f"{spec}: what it makes would not do:\n" + "\n".join(found))
    if out is None:
        print(json.dumps(files, indent=1)) if as_json else print(joined(files), end="")
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
        (out / name).chmod(0o755 if name.endswith(".sh") else 0o644)
    paths = [str(out / name) for name in files]
    print(json.dumps({"files": paths}) if as_json else "\n".join(paths))


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Launcher files, Kubernetes manifests, or scripts.")],
    as_json: AsJson = False,
) -> None:
    """Check files of a cluster without a cloud: Ray's schema, KubeRay's, and our own rules; exit code 2 and every mistake."""
    from headrace.cluster.validate import validate_files
    from headrace.config import ConfigError
    from headrace.control.exits import CONFIGURATION

    checked = validate_files(files)
    found = [line for each in checked for line in each.lines()]
    if as_json:
        print(json.dumps({"valid": not found, "files": [each.plain() for each in checked]}, indent=1))
        raise typer.Exit(CONFIGURATION if found else 0)
    for each in checked:
        for note in each.unchecked:
            print(f"{each.file}: not checked: {note}", file=sys.stderr)
    if found:
        raise ConfigError("\n".join(found))
    for each in checked:
        print(f"{each.file}: valid")


@app.command(context_settings={"allow_interspersed_args": False})
def rig(
    command: Annotated[list[str], typer.Argument(help="What to run in it, after `--`; `bash` to look around.")],
    nodes: Annotated[int, typer.Option(min=1, max=200, help="Workers besides the head.")] = 2,
    cpus: Annotated[int, typer.Option(min=1, help="Cores that a worker stands for.")] = 1,
) -> None:
    """Run a command beside a Ray cluster of several nodes on this machine, each with a network of its own; all is gone when it ends."""
    import signal

    from headrace.cluster.rig import run

    process = run(nodes, cpus, command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the command by itself
    try:
        raise typer.Exit(process.wait())
    finally:
        process.kill()  # of use when this process is told to end


@app.command()
def fault(
    what: Annotated[str, typer.Argument(help="cut or heal (its cable), kill or start (the node), drain (notice that it goes).")],
    node: Annotated[str, typer.Argument(help="n1 is the head, n2 and so on the workers.")],
) -> None:
    """Inside a rig: harm a node, or mend it."""
    from headrace.cluster.rig import here
    from headrace.config import ConfigError

    found = here()
    faults: dict[str, Callable[[str], object]] = {
        "cut": found.cut,
        "heal": found.heal,
        "kill": found.kill,
        "start": found.start,
        "drain": found.drain,
    }
    if what not in faults:
        raise ConfigError(f"fault {what!r}: expected one of {', '.join(faults)}.")
    faults[what](node)
