"""Verbs over runs that are at work somewhere: hand over, look, follow, stop, go on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from headrace.cli.arguments import AsJson, ConfigFile, Overrides, RunFolder, named_folder

Address = Annotated[str | None, typer.Option(help="The dashboard of the cluster, http://HOST:8265; its token is found as Ray finds it.")]


def submit(
    config: ConfigFile,
    overrides: Overrides = None,
    address: Annotated[str | None, typer.Option(help="The cluster's dashboard, http://HOST:8265; default: cluster.address.")] = None,
    upto: Annotated[Literal["data", "train", "scores"], typer.Option(help="How far: as `headrace data`, `train` or `run`.")] = "scores",
    shared_storage: Annotated[bool, typer.Option("--shared-storage", help="Paths mean the same files here and on every node.")] = False,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE that the driver's node must have; default: the head.")] = None,
    resource: Annotated[list[str] | None, typer.Option(help="NAME=AMOUNT that the driver takes, as CPU=1; default: nothing.")] = None,
    python: Annotated[str | None, typer.Option(help="The interpreter on the cluster; default: `python` on its path.")] = None,
    as_json: AsJson = False,
) -> None:
    """Hand a run over to a cluster, where it goes on without this machine. Twice is once: the second finds the first."""
    from headrace.submit.portable import load_for
    from headrace.submit.remote import connect
    from headrace.submit.submission import Placement
    from headrace.submit.submission import submit as hand_over

    placement = Placement(labels=_pairs(label, "--label"), resources=_amounts(resource))
    remote = connect(address or _own_address(config, overrides))
    run = load_for(config, overrides or [], remote, shared_storage)
    _told(run.folder, hand_over(run, remote, upto, placement, shared_storage=shared_storage, python=python), as_json)


def status(
    what: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's folder; with --address, a submission may be named.")] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """How a run stands: done, at work, pending and why, failed and why; how far it is and how long it takes yet."""
    from headrace.config import ConfigError
    from headrace.submit.remote import connect
    from headrace.submit.standing import own_sentence, standing

    remote = connect(address) if address else None
    if what is not None and (remote is None or _is_run(what)):
        found = standing(named_folder(what), remote)
        print(json.dumps(found, indent=1)) if as_json else _print_standing(found)
        return
    if remote is None:
        raise ConfigError("status: name a run's folder, or a cluster with --address URL.")
    jobs = [remote.known(what)] if what else remote.jobs()
    if as_json:
        print(json.dumps([asdict(job) for job in jobs] if what is None else asdict(jobs[0]), indent=1))
        return
    rows = [
        (job.submission_id, job.status.lower(), _age(job.ended or job.started), job.metadata.get("run", ""), own_sentence(job))
        for job in jobs
    ]
    _print_columns(("job", "state", "since", "run", "message"), rows)


def logs(
    run: RunFolder,
    job: Annotated[str | None, typer.Argument(help="data, train, evaluate-STEP-SUITE, baselines, drive, or a submission id.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over, and end with its exit code.")] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """What a job of a run has written; the driver's if none is named."""
    from headrace.config import ConfigError
    from headrace.control.exits import RunError
    from headrace.submit.follow import follow as follow_log
    from headrace.submit.logs import choose, stored, text
    from headrace.submit.remote import connect
    from headrace.submit.standing import cluster_of
    from headrace.submit.submission import is_doomed, jobs_of, recorded

    try:
        remote = connect(address) if address else cluster_of(run)
        before = recorded(run)
        known = [each for each in jobs_of(run, remote.jobs()) if not is_doomed(each, before)] if remote else []
    except (ConfigError, RunError) as error:
        if follow or not stored(run):
            raise
        print(f"{error} What the run's folder keeps of its logs:", file=sys.stderr)
        remote, known = None, []
    chosen = choose(run, job, known)
    state = next((each for each in known if each.submission_id == chosen), None)
    if follow and state is not None and remote is not None:
        if state.status == "PENDING":
            print(f"{chosen}: {state.message}", file=sys.stderr)
        lines = _JsonLines(chosen)
        ended = follow_log(remote, chosen, lines if as_json else _write)
        if as_json:
            lines.end()
            print(json.dumps({"job": chosen, "status": ended.status, "exit_code": ended.code}))
        raise SystemExit(ended.code)
    written = text(run, chosen, remote)
    if as_json:
        print(json.dumps({"job": chosen, "status": state.status if state else None, "log": written}, ensure_ascii=False))
    else:
        _write(written)


def stop(
    run: RunFolder,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that each has to end by itself, after a last checkpoint.")] = 660.0,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """End what is at work on a run, its driver first; `headrace resume` goes on from what is done."""
    from headrace.submit.ending import stop as end
    from headrace.submit.remote import connect

    stopped = end(run, connect(address) if address else None, wait, lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps(stopped))
    elif stopped["driver"] is None and not stopped["jobs"]:
        print(f"{stopped['run']}: nothing was at work")
    else:
        print(f"{stopped['run']}: stopped; `headrace resume {stopped['run']}` goes on")


def resume(run: RunFolder, address: Address = None, as_json: AsJson = False) -> None:
    """Go on with a run by the same configuration: submitted again where it was submitted, else here."""
    from headrace.cli.runs import finish
    from headrace.run import open_run
    from headrace.submit.remote import connect
    from headrace.submit.standing import wanted
    from headrace.submit.submission import recorded, resubmit

    before = recorded(run)
    if before is None and address is None:
        config = open_run(run)
        finish(config, wanted(config, None), as_json)
        return
    remote = connect(address or before.address) if before else connect(str(address))
    _told(run, resubmit(run, remote), as_json)


def runs(
    folder: Annotated[str, typer.Argument(help="A folder of runs: a path, s3:// or gs://.")] = "runs",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """The runs below a folder, or on a cluster: state, age, step, loss, newest score."""
    from headrace.submit.listing import below, on_cluster
    from headrace.submit.remote import connect

    rows = on_cluster(connect(address)) if address else below(named_folder(folder))
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    head = ("run", "state", "last event", "step", "loss", "newest score", "")
    _print_columns(head, [_run_row(row) for row in rows])


def _told(folder: Path, made: Any, as_json: bool) -> None:
    from headrace.submit.submission import called

    run = called(folder)
    if as_json:
        about = ("submission_id", "generation", "address", "upto", "config_sha256", "adopted")
        print(json.dumps({"run": run, **{name: getattr(made, name) for name in about}}))
        return
    print(f"{made.submission_id}: {'at work there already' if made.adopted else 'submitted'} ({made.address})")
    print(f"headrace status {run}; headrace logs {run} -f; headrace stop {run}")


def _own_address(config: Path, overrides: list[str] | None) -> str:
    from headrace.config import ConfigError
    from headrace.run import load_run

    address = load_run(config, overrides or []).cluster.address
    if address is None:
        raise ConfigError(f"{config}: no cluster to submit to; name its dashboard with --address http://HOST:8265, or in cluster.address.")
    return address


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    from headrace.config import ConfigError

    found = {}
    for each in given or []:
        name, equals, value = each.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"{option} {each!r}: expected NAME=VALUE.")
        found[name] = value
    return found


def _amounts(given: list[str] | None) -> dict[str, float]:
    from headrace.config import ConfigError

    try:
        return {name: float(value) for name, value in _pairs(given, "--resource").items()}
    except ValueError as error:
        raise ConfigError(f"--resource: {error}; expected NAME=AMOUNT.") from None


def _is_run(what: str) -> bool:
    from headrace import storage

    return storage.present(named_folder(what) / "config.yaml") or storage.present(named_folder(what) / "control" / "submission.json")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class _JsonLines:
    """Whole lines as JSON objects; the part of one that has no end yet waits for it."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._rest = ""

    def __call__(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            print(json.dumps({"job": self._job, "line": line}, ensure_ascii=False), flush=True)

    def end(self) -> None:
        if self._rest:
            self("\n")


def _age(since: float | None) -> str:
    from headrace.observe.pace import clock

    return "" if since is None else f"{clock(max(0.0, time.time() - since))} ago"


def _run_row(row: dict[str, Any]) -> tuple[str, ...]:
    step = "" if row["step"] is None else f"{row['step']:,} of {row['steps']:,}" if row["steps"] else f"{row['step']:,}"
    score = row["score"]
    bits = "" if score is None else f"{score['bits_per_byte']:.3f} bits/byte at {score['step']:,}" if score["bits_per_byte"] else ""
    loss = "" if row["loss"] is None else f"{row['loss']:.3f}"
    return (
        row["run"],
        row["state"],
        _age(row["updated"]),
        step,
        loss,
        bits,
        (row["message"] or "").splitlines()[0] if row["message"] else "",
    )


def _print_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as what they hold: names are there to be copied, so none is shortened, wherever they go."""
    lines = [[cell.splitlines()[0] if cell else "" for cell in line] for line in (head, *rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _print_standing(found: dict[str, Any]) -> None:
    """A run's standing for people, on stdout."""
    from headrace.observe.pace import clock, progress_line

    print(f"{found['run']}: {found['state']}" + (f" (last event {_age(found['updated'])})" if found["updated"] else ""))
    if found["message"]:
        print(f"  {found['message']}")
    for stage in found["stages"]:
        rows = f"{stage['rows_in']:,} in, {stage['rows_out']:,} out" if stage["done"] else ""
        print(f"  {stage['stage']:<14} {'done' if stage['done'] else '-':<5} {rows}".rstrip())
    for line in found["progress"]:
        print(f"  {progress_line(line['stage'], line)}")
    if training := found["training"]:
        left = f", {clock(training['seconds_left'])} left" if training["seconds_left"] else ""
        loss = "" if training["loss"] is None else f", loss {training['loss']:.3f}"
        steps = f" of {training['steps']:,}" if training["steps"] else ""
        print(f"  train: step {training['step']:,}{steps}{loss}, {training['tokens_per_s']:,.0f} tokens/s{left}")
    made = found["checkpoints"]
    if made["committed"]:
        score = made["score"]
        told = f"; step {score['step']:,}: validation loss {score['validation_loss']:.3f}" if score else ""
        print(f"  checkpoints: {made['committed']}, the newest of step {made['newest']:,}; {made['scored']} scored{told}")
    for job in found["jobs"]:
        if job["status"] != "done":
            print(f"  {job['job']}: {job['status']}" + (f": {job['message']}" if job["message"] else ""))
