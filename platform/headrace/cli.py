"""The `headrace` command: verbs over the library; results on stdout, progress on stderr."""

from __future__ import annotations

import functools
import json
import logging
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from headrace.terminal import print_summary, print_table, tracked

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Raw text to a trained, scored language model on Ray."
)

CONFIGS = Path(__file__).resolve().parents[2] / "jobs" / "configs"

ConfigFile = Annotated[Path, typer.Argument(help="The run's YAML; `headrace init` writes a commented one.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub.0.name=value, over the YAML")]
RunFolder = Annotated[Path, typer.Argument(help="A run's folder: what `out` named.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def run(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """The whole flow: data, training, scores, report. The same command again goes on where it stopped."""
    _bring(config, overrides, "scores", as_json)


@app.command()
def data(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """The data stages only: raw files to packed tokens."""
    _bring(config, overrides, "data", as_json)


@app.command()
def train(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Data and training, without scores."""
    _bring(config, overrides, "train", as_json)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or that of a model in the Hugging Face format.")],
    text: Annotated[Path | None, typer.Option(help="For a model: the run whose held-out text it is scored on.")] = None,
    name: Annotated[str | None, typer.Option(help="For a model: what to call it; its folder's name if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score every checkpoint of a run that has no score yet; or a published model, on the held-out text of a run."""
    from headrace.config import ConfigError
    from headrace.evaluate.watcher import forget_failures
    from headrace.run import open_run

    if text is not None:
        _score_outside(folder, text, name or folder.resolve().name, as_json)
        return
    if (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: a model in the Hugging Face format; name the run whose held-out text it is scored on: --text RUN.")
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: neither a run (config.yaml) nor a model (config.json) is there; models are never fetched.")
    config = open_run(folder)
    forget_failures(folder)
    _finish(config, "scores", as_json)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/quickstart"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """The whole flow on text that every machine has: the sources, docstrings, descriptions and licences of its Python."""
    from headrace.config import expand_environment, load_yaml, override, validate
    from headrace.ingest.python_installation import collect
    from headrace.run import RunConfig, check_run
    from headrace.storage import writable_folder

    values = override(load_yaml(CONFIGS / "quickstart.yaml"), [f"out={out}"])
    for source in values["sources"]:
        source["path"] = str(out / "raw" / f"{source['name']}.jsonl.zst")
    config = validate(RunConfig, expand_environment(override(values, overrides or [])), "quickstart.yaml")
    check_run(config, "quickstart.yaml")
    collect(writable_folder(config.folder, "out") / "raw")
    _finish(config, "scores", as_json)


@app.command()
def init(path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("headrace.yaml")) -> None:
    """Write a commented YAML to start from."""
    from headrace.config import ConfigError

    if path.exists():
        raise ConfigError(f"{path}: exists already; name another file, or move it away.")
    shutil.copyfile(CONFIGS / "own.yaml", path)
    print(f"{path}: written. Name your files in it, then: headrace plan {path}; headrace run {path}")


@app.command()
def plan(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """What a run would do, need and take: layout, parameters, token budget, disk, time. Starts nothing."""
    from headrace.plan import make_plan, print_plan
    from headrace.run import load_run

    made = make_plan(load_run(config, overrides or []))
    print(json.dumps(made, indent=1)) if as_json else print_plan(made, Console())


@app.command()
def report(folder: RunFolder, as_json: AsJson = False) -> None:
    """Write report.json and report.html anew from what the run's folder holds."""
    from headrace.report import write_report
    from headrace.run import open_run

    open_run(folder)
    written = write_report(folder)
    print(json.dumps(written, indent=1)) if as_json else print_summary(folder, written)


@app.command()
def generate(
    folder: RunFolder,
    text: Annotated[str, typer.Argument(help="The text to continue; may be empty.")],
    tokens: Annotated[int, typer.Option(min=1, help="At most so many new tokens.")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=1, help="Draw among the k likeliest.")] = 40,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal text.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Continue a text with the newest checkpoint of a run."""
    from headrace.config import ConfigError
    from headrace.evaluate.generate import generate as continue_text
    from headrace.evaluate.watcher import latest_checkpoint

    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        raise ConfigError(f"{folder}: no committed checkpoint below train/checkpoints; `headrace run` makes them.")
    made = continue_text(checkpoint, text, tokens, temperature, top_k, seed)
    print(json.dumps({"checkpoint": checkpoint.name, "prompt": text, "text": made}, ensure_ascii=False) if as_json else text + made)


@app.command()
def inspect(
    folder: RunFolder,
    stage: Annotated[str, typer.Option(help="ingest, filters, dedup or decontaminate.")] = "filters",
    reason: Annotated[str | None, typer.Option(help="Only what was rejected for this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What a stage rejected, and why: nothing vanishes."""
    from headrace.inspection import rejected

    rows = rejected(folder, stage, reason, limit)
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    head = ("source", "id", "reason", "details")
    print_table((*head, "text"), ([*(row[name] for name in head), row["text"][:120].replace("\n", " ")] for row in rows))


@app.command()
def materialize(
    folder: RunFolder,
    out: Annotated[Path, typer.Option(help="An empty folder, or one to be made.")],
    form: Annotated[Literal["jsonl", "parquet"], typer.Option("--format", help="jsonl is written as zstd.")] = "jsonl",
    as_json: AsJson = False,
) -> None:
    """The clean corpus as files: what every stage keeps, without what was cut."""
    from headrace.materialize import materialize as write_corpus
    from headrace.run import open_run

    open_run(folder)
    found = write_corpus(folder, out, form, functools.partial(tracked, what="materialize", kind="units"))
    if as_json:
        print(json.dumps(found))
        return
    counts = f"{found['documents']:,} documents, {found['text_bytes'] / 1e6:,.1f} MB of text, {found['cut_chars']:,} characters cut"
    print(f"{out}: {found['files']:,} files, {counts}")


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="RUN@STEP, or RUN for its newest checkpoint.")],
    out: Annotated[Path, typer.Option(help="A folder that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint's model in the Hugging Face format: config.json, model.safetensors, tokenizer.json."""
    from headrace.checkpoint import CheckpointError
    from headrace.checkpoint.export import export_hugging_face
    from headrace.checkpoint.named import find, place
    from headrace.config import ConfigError

    try:
        found = find(*place(checkpoint))
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    files = export_hugging_face(found, out.expanduser().absolute())
    size = sum(path.stat().st_size for path in files)
    if as_json:
        print(json.dumps({"checkpoint": str(found), "files": [str(path) for path in files], "bytes": size}))
        return
    print(f"{out}: {found.name} in {len(files)} files, {size / 1e6:,.1f} MB")


@app.command()
def overlap(
    a: Annotated[str, typer.Argument(help="A text; or a file, folder or pattern (JSONL, Parquet, text, WARC; .gz .zst .lz4).")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    n: Annotated[str, typer.Option("--n", help="Words of the n-grams to compare.")] = "1,2,3,5",
    threshold: Annotated[float, typer.Option(help="Jaccard similarity from which two documents are counterparts.")] = 0.75,
    text: Annotated[bool, typer.Option("--text", help="Both are texts, also where a file is called so.")] = False,
    as_json: AsJson = False,
) -> None:
    """How much two texts or corpora share: words, n-grams, and documents of B that are in A."""
    from headrace.dedup.comparison import compare, numbers, print_comparison, side

    found = compare(side(a, "A", text), side(b, "B", text), numbers(n), threshold)
    print(json.dumps(found, indent=1)) if as_json else print_comparison(found, Console())


@app.command()
def clean(
    folder: RunFolder, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False, as_json: AsJson = False
) -> None:
    """Remove data artifacts that the run's configuration does not refer to, and what killed workers left."""
    from headrace.control.controller import sole_driver
    from headrace.inspection import unreferenced
    from headrace.run import open_run

    open_run(folder)
    with sole_driver(folder.absolute()):
        found = unreferenced(folder)
        if not dry_run:
            for path, _ in found:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    size = sum(bytes_ for _, bytes_ in found)
    if as_json:
        print(json.dumps({"removed": [str(path) for path, _ in found], "bytes": size, "dry_run": dry_run}))
        return
    for path, bytes_ in found:
        print(f"{path}  {bytes_ / 1e6:,.1f} MB")
    print(f"{'would remove' if dry_run else 'removed'} {len(found)} artifacts, {size / 1e6:,.1f} MB")


def _bring(path: Path, overrides: list[str] | None, upto: str, as_json: bool) -> None:
    from headrace.run import load_run

    _finish(load_run(path, overrides or []), upto, as_json)


def _finish(config: Any, upto: Any, as_json: bool) -> None:
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
    print(f"report  {run.absolute() / 'report.html'}")


def guarded(command: Callable[[], None]) -> int:
    """Run a command; an error becomes its sentence on stderr and its exit code."""
    from headrace.control.exits import FAILED, exit_code, sentence

    try:
        command()
    except SystemExit as end:
        return int(end.code or 0) if not isinstance(end.code, str) else FAILED
    except Exception as error:
        code = exit_code(error)
        if code == FAILED:
            logging.getLogger("headrace").debug("", exc_info=error)
        print(f"headrace: {sentence(error)}", file=sys.stderr)
        return code
    return 0


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: the run's jobs and its cluster are ended in order
    sys.exit(guarded(app))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
