"""Everything that the report says, read from a run's folder; whatever is not there yet is null or empty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace import __version__, storage
from headrace.artifact import DOCUMENT_STAGES
from headrace.report.clock import clock
from headrace.report.contamination import contamination
from headrace.report.duplicates import duplicates
from headrace.report.now import now
from headrace.report.numbers import finite
from headrace.report.summary import alarms, verdict
from headrace.report.training import training

METRICS = ("bits_per_byte", "token_perplexity", "next_token_accuracy")


def gather(run: Path) -> dict[str, Any]:
    """The content of report.json.

    A function of the run's files alone: the same folder gives the same report. Numbers that are not finite become null.

    Args:
        run: a run's folder, at any point of its life.
    """
    events = storage.read_lines(run / "events.jsonl")
    stages = [_stage(folder) for folder in _stage_folders(run)]
    config = None
    if storage.present(run / "config.yaml"):
        config = storage.read_bytes(run / "config.yaml").decode("utf-8", "replace")
    report: dict[str, Any] = {
        "run": run.absolute().name,
        "headrace_version": __version__,
        "updated": events[-1].get("time") if events else None,
        "now": now(events),
        "funnel": stages,
        "sources": _sources(run, stages),
        "tokens": _tokens(run, stages),
        "model": None,
        "training": training(run),
        "checkpoints": _checkpoints(run),
        "baselines": _baselines(run),
        "external": [],
        "duplicates": duplicates(run, stages),
        "contamination": contamination(run, stages),
        "time": clock(run, events, stages),
        "config": config,
        "files": _files(run),
    }
    report["model"] = _model(run)
    report["external"] = _external(run, stages, report["baselines"])
    report["alarms"] = alarms(report, events)
    report["verdict"] = verdict(report, events)
    return _plain(report)


def _plain(value: Any) -> Any:
    """The value with null for what JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _stage_folders(run: Path) -> list[Path]:
    """The committed artifact of each stage, in the order of the stages: the one that `current.json` names, else the newest."""
    named = storage.read_json(run / "data" / "current.json") if storage.present(run / "data" / "current.json") else {}
    found = []
    for stage in DOCUMENT_STAGES:
        there = [run / "data" / stage / name for name in storage.names(run / "data" / stage)]
        folders = [folder for folder in there if storage.present(folder / "manifest.json")]
        current = run / "data" / stage / str(named.get(stage))
        if current in folders:
            found.append(current)
        elif folders and stage not in named:
            found.append(max(folders, key=lambda folder: storage.touched(folder)["manifest.json"]))
    return found


def _stage(folder: Path) -> dict[str, Any]:
    manifest = storage.read_json(folder / "manifest.json")
    totals = manifest["totals"]
    fixed = ("rows_in", "rows_out", "rejected")
    return {
        "stage": folder.parent.name,
        "fingerprint": folder.name,
        "rows_in": totals.get("rows_in", 0),
        "rows_out": totals.get("rows_out", 0),
        "rejected": dict(sorted(totals.get("rejected", {}).items(), key=lambda item: (-item[1], item[0]))),
        "counters": {name: value for name, value in totals.items() if name not in fixed},
        "units": [
            {key: unit.get(key) for key in ("id", "source", "rows_in", "rows_out", "rejected", "counters")} for unit in manifest["units"]
        ],
    }


def _store(run: Path, stages: list[dict[str, Any]]) -> dict[str, Any] | None:
    for stage in stages:
        path = run / "data" / "tokens" / stage["fingerprint"] / "store.json"
        if stage["stage"] == "tokens" and storage.present(path):
            found: dict[str, Any] = storage.read_json(path)
            return found
    return None


def _sources(run: Path, stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each source, the documents that enter and leave every stage. Takes the units out of `stages`: they are not reported."""
    store = _store(run, stages)
    source_of: dict[str, str] = dict(store["unit_sources"]) if store else {}
    for stage in stages:
        source_of |= {unit["id"]: unit["source"] for unit in stage["units"] if unit["source"]}
    found: dict[str, dict[str, Any]] = {}
    for stage in stages:
        for unit in stage.pop("units"):
            if unit["id"] not in source_of:
                continue
            name = source_of[unit["id"]]
            source = found.setdefault(name, {"source": name, "stages": {}, "tokens": store["sources"].get(name) if store else None})
            row = source["stages"].setdefault(stage["stage"], {"rows_in": 0, "rows_out": 0, "rejected": {}})
            row["rows_in"] += unit["rows_in"]
            row["rows_out"] += unit["rows_out"]
            for reason, rows in unit["rejected"].items():
                row["rejected"][reason] = row["rejected"].get(reason, 0) + rows
    return [found[name] for name in sorted(found)]


def _tokens(run: Path, stages: list[dict[str, Any]]) -> dict[str, Any] | None:
    store = _store(run, stages)
    if store is None:
        return None
    parts = {
        part: {what: sum(source[part][what] for source in store["sources"].values()) for what in ("documents", "tokens", "bytes")}
        for part in ("train", "validation")
    }
    return {"vocab_size": store["vocab_size"], "sequence_length": store["sequence_length"], **parts}


def _model(run: Path) -> dict[str, Any] | None:
    """The model of the newest checkpoint, and how many numbers its weights have."""
    for folder in reversed(_checkpoint_folders(run / "train" / "checkpoints", "manifest.json")):
        manifest = storage.read_json(folder / "manifest.json")
        weights = [tensor for tensor in manifest["tensors"].values() if tensor["file"].startswith("model")]
        return {
            "parameters": sum(math.prod(tensor["shape"]) for tensor in weights),
            "config": manifest["model"],
            "layout": manifest.get("layout"),
            "versions": manifest.get("versions"),
        }
    return None


def _checkpoints(run: Path) -> list[dict[str, Any]]:
    """Every checkpoint that is there or was scored, by step."""
    kept = {folder.name: folder / "manifest.json" for folder in _checkpoint_folders(run / "train" / "checkpoints", "manifest.json")}
    scored = {folder.name: folder / "fast.json" for folder in _checkpoint_folders(run / "eval", "fast.json")}
    found = []
    for name in sorted(kept.keys() | scored.keys(), key=_step):
        entry: dict[str, Any] = {"checkpoint": name, "step": _step(name), "bytes": None, "status": "not scored", "reason": None}
        entry |= {"validation_loss": None, "scored_tokens": None, "seconds": None, "scores": {}}
        if name in kept:
            entry["bytes"] = sum(file["bytes"] for file in storage.read_json(kept[name])["files"])
        if name in scored:
            result = storage.read_json(scored[name])
            entry["status"] = result.get("status", "scored")
            entry["reason"] = result.get("reason")
            entry["scores"] = _scores(result.get("metrics", []))
            entry["validation_loss"] = finite(result.get("validation_loss"))
            entry |= {key: result.get(key) for key in ("scored_tokens", "seconds")}
        found.append(entry)
    return found


def _checkpoint_folders(root: Path, holding: str) -> list[Path]:
    return [folder for folder in storage.holding(root, holding) if folder.name.startswith("step-")]


def _step(name: str) -> int:
    number = name.removeprefix("step-")
    return int(number) if number.isdigit() else -1


def _scores(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{source or "all": {metric: {value, stderr, ci95, n_documents}}}"""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["metric"] in METRICS:
            found.setdefault(row["source"], {})[row["metric"]] = {key: row.get(key) for key in ("value", "stderr", "ci95", "n_documents")}
    return found


def _baselines(run: Path) -> dict[str, Any] | None:
    path = run / "eval" / "baselines.json"
    if not storage.present(path):
        return None
    result = storage.read_json(path)
    models = [
        {
            **{key: baseline.get(key) for key in ("name", "order", "smoothing", "bits_per_byte", "nats_per_token")},
            "scores": _scores(baseline["metrics"]),
        }
        for baseline in result["baselines"]
    ]
    return {"models": models, **{key: result.get(key) for key in ("training_tokens", "scored_tokens", "bytes", "definition", "seconds")}}


def _external(run: Path, stages: list[dict[str, Any]], baselines: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Models from outside, by name, that were scored on the run's present text, and on as much of it as the baselines."""
    present = {stage["fingerprint"] for stage in stages if stage["stage"] == "tokens"}
    results = storage.read_all([run / "eval" / "external" / name for name in storage.names(run / "eval" / "external")])
    return [
        {
            **{key: result.get(key) for key in ("name", "architecture", "parameters", "definition")},
            "scores": _scores(result["metrics"]),
        }
        for result in results
        if result["tokens_fingerprint"] in present and (baselines or {}).get("bytes") in (None, result["bytes"])
    ]


def _files(run: Path) -> list[dict[str, Any]]:
    """Files and bytes below each part of the run's folder."""
    found: dict[str, dict[str, Any]] = {}
    for path, size in sorted(storage.sizes(run).items()):
        names = path.split("/")
        if names[0].startswith((storage.ASIDE, "report.")):
            continue
        depth = 2 if names[0] in {"data", "train"} else 1
        part = "/".join(names[:depth]) + ("/" if len(names) > depth else "")
        entry = found.setdefault(part, {"path": part, "files": 0, "bytes": 0})
        entry["files"] += 1
        entry["bytes"] += size
    return [found[part] for part in sorted(found)]
