"""Two runs side by side: what was configured differently, what came of the data, of training, and of the scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from headrace import storage
from headrace.report.gather import gather
from headrace.report.numbers import finite

# Comparable between tokenizers: bits per byte alone; the other metrics count tokens, which are then other things.
ACROSS_TOKENIZERS = ("bits_per_byte",)
TRAINING = ("steps", "tokens", "last_loss", "tokens_per_s", "mfu", "seconds")
Z95 = 1.959964  # of the normal distribution, two-sided


def compare(a: Path, b: Path) -> dict[str, Any]:
    """The differences between two runs, in plain values.

    Returns:
        {"a", "b": names; "configuration": [{"key", "a", "b"}] where they differ; "data": [{"stage", "a", "b"}] rows that left each stage,
        "same_data", "same_tokenizer"; "training": [{"number", "a", "b"}]; "step": the newest step of which both have scores, or null;
        "scores": [{"metric", "source", "a", "b", "difference" (b - a), "stderr", "clear"}] at that step, or, where there is none, of the
        newest checkpoint of each}. "clear": the difference is beyond 1.96 standard errors, taken as if the two were measured
        independently, which is too careful for models that were scored on the same text.
    """
    left, right = gather(a), gather(b)
    step, scores = _checkpoints(left, right)
    fingerprints = [{entry["stage"]: entry["fingerprint"] for entry in report["funnel"]} for report in (left, right)]
    same_tokenizer = _tokenizer(a) is not None and _tokenizer(a) == _tokenizer(b)
    return {
        "a": left["run"],
        "b": right["run"],
        "configuration": list(_differing(_flat(left), _flat(right))),
        "same_data": bool(fingerprints[0].get("tokens")) and fingerprints[0].get("tokens") == fingerprints[1].get("tokens"),
        "same_tokenizer": same_tokenizer,
        "data": list(_rows(left, right)),
        "training": list(_training(left, right)),
        "step": step,
        "scores": list(_scores(*scores, same_tokenizer)) if scores else [],
    }


def _flat(report: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run by the keys that an override names; without where the run lies."""
    found = dict(_leaves(yaml.safe_load(report["config"]) if report["config"] else {}))
    found.pop("out", None)
    return found


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    below = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if below is None:
        yield place, value
        return
    for key, each in below:
        yield from _leaves(each, f"{place}.{key}".lstrip("."))


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key):
            yield {"key": key, "a": a.get(key), "b": b.get(key)}


def _rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    left, right = ({entry["stage"]: entry["rows_out"] for entry in report["funnel"]} for report in (a, b))
    for stage in [*left, *(stage for stage in right if stage not in left)]:
        yield {"stage": stage, "a": left.get(stage), "b": right.get(stage)}


def _training(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number in TRAINING:
        left, right = ((report["training"] or {}).get(number) for report in (a, b))
        if left is not None or right is not None:
            yield {"number": number, "a": left, "b": right}


def _checkpoints(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[int | None, tuple[dict[str, Any], dict[str, Any]] | None]:
    """The newest step that both have scores of, and these; else those of the newest of each."""
    left, right = ({entry["step"]: entry["scores"] for entry in report["checkpoints"] if entry["scores"]} for report in (a, b))
    if not left or not right:
        return None, None
    both = left.keys() & right.keys()
    if both:
        return max(both), (left[max(both)], right[max(both)])
    return None, (left[max(left)], right[max(right)])


def _scores(a: Mapping[str, Any], b: Mapping[str, Any], same_tokenizer: bool) -> Iterator[dict[str, Any]]:
    for source in sorted(a.keys() & b.keys(), key=lambda source: (source == "all", source)):
        for metric in (metric for metric in a[source] if metric in b[source]):
            if metric not in ACROSS_TOKENIZERS and not same_tokenizer:
                continue
            left, right = (finite(scores[source][metric]["value"]) for scores in (a, b))
            errors = [finite(scores[source][metric].get("stderr")) for scores in (a, b)]
            known = [error for error in errors if error is not None]
            stderr = math.hypot(*known) if len(known) == 2 else None
            difference = right - left if left is not None and right is not None else None
            clear = abs(difference) > Z95 * stderr if difference is not None and stderr is not None else None
            yield {"metric": metric, "source": source, "a": left, "b": right, "difference": difference, "stderr": stderr, "clear": clear}


def _tokenizer(run: Path) -> str | None:
    try:
        found = storage.read_json(run / "data" / "current.json").get("tokenizer")
    except FileNotFoundError:
        return None
    return None if found is None else str(found)
