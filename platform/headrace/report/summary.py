"""What a reader wants to know first: how far the run is, what is wrong with it, and its main numbers."""

from __future__ import annotations

from typing import Any

import yaml

from headrace.report.numbers import count, decimals, duration, finite, share, short, with_error

REASONS_SHOWN = 12
DATA_WAIT_ALARM = 0.01  # share of training time spent waiting for data
REMOVED_ALARM = 0.9  # share of a source's documents
WORSE_ALARM = 2.0  # standard errors


def summary_table(report: dict[str, Any]) -> list[tuple[str, str]]:
    """(label, value) rows: documents in, kept and removed by reason, tokens, losses, bits per byte beside the baselines, time."""
    rows: list[tuple[str, str]] = []
    read, kept = documents(report)
    if read is None:
        rows.append(("documents", "none yet"))
    else:
        rows.append(("documents in", count(read)))
        rows.append(("kept", f"{count(kept)} ({share((kept or 0) / read if read else None)})"))
        reasons = removals(report)
        rows += [(f"removed: {stage}, {reason}", count(number)) for stage, reason, number in reasons[:REASONS_SHOWN]]
        if rest := reasons[REASONS_SHOWN:]:
            rows.append((f"removed: {len(rest)} other reasons", count(sum(number for _, _, number in rest))))
    if found := report["contamination"]:
        items, bad = (sum(row[key] for row in found["benchmarks"]) for key in ("items", "contaminated"))
        rows.append(("evaluation items in the text", f"{count(bad)} of {count(items)} ({share(bad / items)})"))
    if tokens := report["tokens"]:
        rows.append(("tokens", f"{count(tokens['train']['tokens'])} training, {count(tokens['validation']['tokens'])} validation"))
    training = report["training"]
    if training:
        rows.append(("trained", f"{count(training['steps'])} steps, {count(training['tokens'])} tokens"))
    else:
        rows.append(("trained", "not yet"))
    scored = [entry for entry in report["checkpoints"] if entry["validation_loss"] is not None]
    if scored:
        for word, entry in (("first", scored[0]), ("last", scored[-1])):
            rows.append((f"{word} validation loss", f"{decimals(entry['validation_loss'], 3)} nats/token (step {count(entry['step'])})"))
        best = scored[-1]["scores"]["all"]["bits_per_byte"]
        rows.append(("bits per byte", f"{with_error(best['value'], best['stderr'])} (step {count(scored[-1]['step'])})"))
    elif training:
        rows.append(("validation", "no checkpoint scored yet"))
    if baselines := report["baselines"]:
        for model in baselines["models"]:
            rows.append((f"  {model['name']} baseline", f"{decimals(model['bits_per_byte'], 3)} ({model['smoothing']})"))
    for model in report["external"]:
        score = model["scores"].get("all", {}).get("bits_per_byte", {})
        rows.append((f"  {model['name']}", f"{with_error(score.get('value'), score.get('stderr'))} (from outside)"))
    if report["time"]["total_seconds"]:
        rows.append(("time", duration(report["time"]["total_seconds"])))
    return rows


def documents(report: dict[str, Any]) -> tuple[int | None, int | None]:
    """Documents that entered the first stage and that left the last one; None before the first stage is done."""
    stages = report["funnel"]
    return (stages[0]["rows_in"], stages[-1]["rows_out"]) if stages else (None, None)


def removals(report: dict[str, Any]) -> list[tuple[str, str, int]]:
    """(stage, reason, documents), the commonest first."""
    found = [(stage["stage"], reason, rows) for stage in report["funnel"] for reason, rows in stage["rejected"].items()]
    return sorted(found, key=lambda row: (-row[2], row[0], row[1]))


def verdict(report: dict[str, Any], events: list[dict[str, Any]]) -> dict[str, str]:
    """{"state": "empty" | "data" | "training" | "scoring" | "complete" | "failed", "text": one sentence or two}."""
    failure: dict[str, Any] = {}
    for event in events:
        if event.get("event") == "failed" and event.get("stage") != "evaluate":
            failure = event
        elif event.get("stage") == failure.get("stage") and event.get("event") in {"retried", "submitted", "adopted", "job finished"}:
            failure = {}
    if failure:
        return {"state": "failed", "text": f"Stopped in {failure.get('stage')}: {failure.get('message') or 'no reason was left'}"}
    read, kept = documents(report)
    if read is None:
        return {"state": "empty", "text": "Nothing is done yet: no data stage has finished."}
    corpus = f"{count(kept)} of {count(read)} documents kept"
    tokens, training = report["tokens"], report["training"]
    if tokens is None:
        return {"state": "data", "text": f"Data under way: {report['funnel'][-1]['stage']} is done, {corpus} so far."}
    if training is None:
        return {"state": "data", "text": f"Data ready: {corpus}, {short(tokens['train']['tokens'])} training tokens. Not trained yet."}
    planned = _planned_steps(report)
    scored = [entry for entry in report["checkpoints"] if entry["validation_loss"] is not None]
    score = f" {_compared(report, scored[-1])}" if scored else ""
    if planned and training["steps"] < planned:
        return {"state": "training", "text": f"Training: step {count(training['steps'])} of {count(planned)}.{score}"}
    waiting = sum(entry["status"] == "not scored" for entry in report["checkpoints"])
    if waiting or not scored:
        return {"state": "scoring", "text": f"Trained for {count(training['steps'])} steps; {waiting} checkpoints not scored yet.{score}"}
    return {"state": "complete", "text": f"Trained for {count(training['steps'])} steps on {short(training['tokens'])} tokens.{score}"}


def _planned_steps(report: dict[str, Any]) -> int | None:
    try:
        planned = yaml.safe_load(report["config"] or "")["train"]["steps"]
    except (KeyError, TypeError, yaml.YAMLError):
        return None
    return planned if isinstance(planned, int) else None


def _compared(report: dict[str, Any], entry: dict[str, Any]) -> str:
    """The score of a checkpoint in a sentence, with where it stands among the baselines."""
    value = finite(entry["scores"].get("all", {}).get("bits_per_byte", {}).get("value"))
    if value is None:
        return "The last score is no finite number."
    text = f"{decimals(value, 3)} bits per byte on held-out text at step {count(entry['step'])}"
    models = report["baselines"]["models"] if report["baselines"] else []
    below = [
        f"{m['name']} ({decimals(m['bits_per_byte'], 3)})" for m in models if m["bits_per_byte"] is not None and value < m["bits_per_byte"]
    ]
    above = [
        f"{m['name']} ({decimals(m['bits_per_byte'], 3)})" for m in models if m["bits_per_byte"] is not None and value >= m["bits_per_byte"]
    ]
    parts = [f"better than {', '.join(below)}"] if below else []
    parts += [f"not better than {', '.join(above)}"] if above else []
    return text + (": " + "; ".join(parts) if parts else "") + "."


def alarms(report: dict[str, Any], events: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What a person should look at: [{"level": "error" | "warning", "stage", "text"}]."""
    found: list[dict[str, str]] = []

    def alarm(level: str, stage: str, text: str) -> None:
        if (entry := {"level": level, "stage": stage, "text": text}) not in found:
            found.append(entry)

    for event in events:
        if event.get("event") == "failed":
            alarm("warning", str(event.get("stage")), f"An attempt failed: {event.get('message') or 'no reason was left'}")
        elif event.get("event") == "alarm":
            alarm("warning", str(event.get("stage")), str(event.get("message")))
    for source in report["sources"]:
        for stage, row in source["stages"].items():
            removed = row["rows_in"] - row["rows_out"]
            if row["rows_in"] and removed / row["rows_in"] > REMOVED_ALARM:
                alarm(
                    "warning", stage, f"{share(removed / row['rows_in'])} of {source['source']} was removed ({count(removed)} documents)."
                )
    training = report["training"]
    if training:
        if training["not_finite"]:
            alarm("error", "train", f"Loss or gradient norm not finite at step {training['not_finite'][0]:,}.")
        if (training["data_wait_share"] or 0.0) > DATA_WAIT_ALARM:
            alarm("warning", "train", f"{share(training['data_wait_share'])} of the training time was spent waiting for data.")
    for entry in report["checkpoints"]:
        if entry["status"] not in {"scored", "not scored"}:
            alarm("error", "evaluate", f"{entry['checkpoint']} has no score: {entry['reason'] or entry['status']}")
    _score_alarms(report, alarm)
    return found


def _score_alarms(report: dict[str, Any], alarm: Any) -> None:
    scored = [
        (entry["step"], score["value"], score["stderr"] or 0.0)
        for entry in report["checkpoints"]
        if (score := entry["scores"].get("all", {}).get("bits_per_byte")) and score["value"] is not None
    ]
    if not scored:
        return
    best, last = min(scored, key=lambda row: row[1]), scored[-1]
    if last[1] > best[1] + WORSE_ALARM * max(best[2], last[2]) and last[0] > best[0]:
        alarm("warning", "evaluate", f"Bits per byte rose from {best[1]:.3f} at step {best[0]:,} to {last[1]:.3f} at step {last[0]:,}.")
    ended = report["training"] and last[0] >= report["training"]["steps"]
    for model in report["baselines"]["models"] if report["baselines"] and ended else []:
        if model["order"] <= 2 and model["bits_per_byte"] is not None and last[1] >= model["bits_per_byte"]:
            alarm(
                "warning",
                "evaluate",
                f"The model ({last[1]:.3f} bits per byte) is no better than the {model['name']} ({model['bits_per_byte']:.3f}).",
            )
