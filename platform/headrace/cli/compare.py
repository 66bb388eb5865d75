"""Verbs that set things side by side: two runs; a configuration and what it may hold."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from headrace.cli.arguments import AsJson, RunFolder
from headrace.terminal import print_table


def compare(run_a: RunFolder, run_b: RunFolder, as_json: AsJson = False) -> None:
    """What two runs were configured differently, and what came of it: rows, loss, speed, scores with their errors."""
    from headrace.report.versus import compare as set_beside
    from headrace.run import open_run

    for run in (run_a, run_b):
        open_run(run)
    found = set_beside(run_a, run_b)
    print(json.dumps(found, indent=1)) if as_json else _print(found)


def config(
    what: Annotated[Literal["schema"], typer.Argument(help="schema: the YAML's JSON Schema, for an editor to check against.")],
) -> None:
    """What a configuration may hold: `headrace config schema > headrace.schema.json`."""
    from headrace.run import RunConfig

    schema = _lenient(RunConfig.model_json_schema(by_alias=True))
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": f"headrace run ({what})"}, indent=1))


def _lenient(schema: Any) -> Any:
    """The schema without what checks before the fields do: a branch's name may be left out (so what is left fits more than one of `oneOf`),
    and a preset gives what is required."""
    if isinstance(schema, list):
        return [_lenient(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    given = "required" if "preset" in schema.get("properties", {}) else None
    return {"anyOf" if key == "oneOf" else key: _lenient(value) for key, value in schema.items() if key != given}


def _print(found: dict[str, Any]) -> None:
    a, b = found["a"], found["b"]
    if found["configuration"]:
        print_table(("configuration", a, b), ((row["key"], _shown(row["a"]), _shown(row["b"])) for row in found["configuration"]))
    else:
        print("configuration: the same")
    print("data: the same" if found["same_data"] else "data: not the same" + ("" if found["same_tokenizer"] else ", nor the tokenizer"))
    if not found["same_data"]:
        print_table(("documents out", a, b), ((row["stage"], _shown(row["a"]), _shown(row["b"])) for row in found["data"]))
    if found["training"]:
        print_table(("training", a, b), ((row["number"], _shown(row["a"]), _shown(row["b"])) for row in found["training"]))
    if found["scores"]:
        at = "newest of each" if found["step"] is None else f"step {found['step']:,}"
        rows = (
            (
                row["metric"],
                row["source"],
                _shown(row["a"]),
                _shown(row["b"]),
                _shown(row["difference"]),
                _shown(row["stderr"]),
                _clear(row),
            )
            for row in found["scores"]
        )
        print_table((f"scores, {at}", "source", a, b, "difference", "its error", "beyond 95 %"), rows)


def _clear(row: dict[str, Any]) -> str:
    return "" if row["clear"] is None else "yes" if row["clear"] else "no"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
