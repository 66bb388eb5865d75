"""What a run would do, need and take, said before anything is started."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from headrace import pipeline, storage
from headrace.artifact import MANIFEST
from headrace.config import dump_yaml
from headrace.dedup.alarms import Alarms
from headrace.dedup.index import IndexConfig
from headrace.dedup.presets import SIMILARITIES, preset_table
from headrace.ingest.listing import estimated_bytes, list_files
from headrace.ingest.sample import write_sample
from headrace.model import ModelConfig, flops_per_token, parameter_count
from headrace.run import RunConfig, as_json
from headrace.tokens.store import PARTS, TokenStore
from headrace.train.auto import as_bytes
from headrace.train.elastic import settle
from headrace.train.memory import rank_bytes
from headrace.train.room import Room
from headrace.train.rules import bubble, counted, hints

SAMPLE_SHARE = 0.001
SAMPLE_MIN_BYTES = 1_000_000  # under this the shares of the stages are those of their start-up
TOKENS_PER_PARAMETER = 20.0  # Hoffmann et al. 2022, arXiv:2203.15556: the compute-optimal ratio
USEFUL_EPOCHS = 4.0  # Muennighoff et al. 2023, arXiv:2305.16264: up to four epochs repeated text is worth nearly as much as new
CHECKPOINT_BYTES_PER_PARAMETER = 12  # fp32 weights and two Adam moments
TRAINING_EFFICIENCY = (
    0.45  # share of a plain matrix product's speed that a training step reaches; measured on CPUs, see benchmarks/README.md
)


def make_plan(config: RunConfig) -> dict[str, Any]:
    """The plan of a run as plain values.

    Raises:
        ConfigError: a source matches nothing, or the layout is illegal.
    """
    files = {source.name: list_files(source) for source in config.sources}
    raw = {name: sum(file.bytes for file in found) for name, found in files.items()}
    text = {name: sum(estimated_bytes(file) for file in found) for name, found in files.items()}
    sample = sample_run(config, sum(text.values()))
    tokens = {name: int(sample["tokens_per_byte"].get(name, 0.0) * text[name]) for name in text}
    model = config.model.sized(sample["vocab_size"], config.tokens.sequence_length)
    layout = layout_plan(config, model)
    parameters = parameter_count(model)
    budget = token_budget(config, parameters, tokens)
    cores = config.cluster.cores
    fixed: dict[str, float] = sample["fixed_seconds"]
    seconds = {stage: rate * sum(text.values()) / cores + fixed.get(stage, 0.0) for stage, rate in sample["seconds_per_byte"].items()}
    flops = flops_per_token(model) * budget["tokens"]
    seconds["train"] = flops / (matmul_flops() * min(config.workers, cores) * TRAINING_EFFICIENCY)
    return {
        "config": as_json(config),
        "stages": {
            name: {"fingerprint": plan.fingerprint, "done": is_done(config, plan)} for name, plan in pipeline.stage_plans(config).items()
        },
        "sources": {
            name: {"files": len(files[name]), "raw_bytes": raw[name], "text_bytes": text[name], "tokens": tokens[name]} for name in files
        },
        "layout": layout,
        "model": {"parameters": parameters, "flops_per_token": flops_per_token(model), "vocab_size": model.vocab_size},
        "start": as_json(config.train.start) if config.train.start else None,
        "budget": budget,
        "dedup": near_duplicates(config),
        "disk_bytes": disk(config, sum(text.values()), sum(tokens.values()), parameters),
        "free_bytes": free_bytes(config.folder),
        "seconds": {stage: round(value, 1) for stage, value in seconds.items()},
        "sample_bytes": sample["bytes"],
    }


def layout_plan(config: RunConfig, model: ModelConfig) -> dict[str, Any]:
    """What each worker does and needs, in bytes; `bytes` is null where only the cluster's workers can choose the layout.

    Raises:
        ConfigError: the layout is illegal, or for `auto`, none fits.
    """
    train, room = config.train, config.room
    batch = {"global_batch": train.batch.global_batch, "micro_batch": train.batch.micro_batch}
    if train.layout == "auto" and room is None:
        why = "the workers choose one when they start, by the memory that they find"
        return {"workers": config.workers, "layout": "auto", **batch, "bytes": None, "explanation": [why], "hints": [], "verdict": "open"}
    known = room or Room(0, config.workers, True)
    settled = settle(train, model, config.workers, known)
    layout, data = settled.layout, settled.layout.data
    assert data is not None
    chosen = train.model_copy(update={"layout": layout})
    stages = [rank_bytes(model, chosen, data, stage, on_gpu=known.on_gpu) for stage in range(layout.pipeline)]
    largest = max(stages, key=lambda need: need.device)
    return {
        "workers": config.workers,
        "idle": settled.idle,
        **as_json(layout),
        "precision": train.precision,
        **batch,
        "accumulation_steps": settled.accumulation,
        "bubble": round(bubble(layout.pipeline, settled.accumulation), 4),
        "bytes": {
            **asdict(largest),
            "total": largest.total,
            "stage": stages.index(largest),
            "available": None if room is None else room.memory,
        },
        "stage_bytes": [asdict(need) for need in stages],
        "explanation": list(settled.explanation),
        "hints": hints(chosen, model, settled.used, None if room is None else room.per_node),
        "verdict": "legal",
    }


def is_done(config: RunConfig, plan: pipeline.StagePlan) -> bool:
    return storage.present(config.folder / "data" / plan.stage / plan.fingerprint / MANIFEST)


def sample_run(config: RunConfig, total: int) -> dict[str, Any]:
    """The data stages, run in this process on a sample of every source: seconds a byte by stage, tokens a byte by source."""
    wanted = max(SAMPLE_MIN_BYTES, int(total * SAMPLE_SHARE))
    with tempfile.TemporaryDirectory(prefix="headrace-plan-") as name:
        folder = Path(name)
        sources, taken = [], {}
        for source in config.sources:
            path = folder / "raw" / f"{source.name}.jsonl"
            taken[source.name] = write_sample(source, path, wanted // len(config.sources))
            sources.append(source.model_copy(update={"path": str(path), "format": "jsonl", "text_field": "text"}))
        # More is held out than in the run, and sequences are short: a sample of a few hundred documents must leave neither part empty.
        tokens = config.tokens.model_copy(update={"sequence_length": 8})
        split = config.split.model_copy(update={"validation": 0.3})
        # A sample says nothing of what its source as a whole repeats, and an index is read whole however little is new.
        dedup = config.dedup.model_copy(update={"alarms": Alarms(), "index": IndexConfig()})
        for run in ("first", "timed"):  # the first one compiles and imports
            changes = {"out": str(folder / run), "sources": tuple(sources), "tokens": tokens, "split": split, "dedup": dedup}
            small = config.model_copy(update=changes)
            store = TokenStore.open(pipeline.curate(small, "local").folder)
        lines = storage.read_lines(folder / "timed" / "events.jsonl")
        fixed = {"decontaminate": index_seconds(folder / "timed")}
    found = {source: sum(store.num_tokens(source, part) for part in PARTS) for source in store.sources}
    total_taken = max(1, sum(taken.values()))
    return {
        "bytes": total_taken,
        "vocab_size": config.tokens.vocab_size if config.tokens.tokenizer == "bpe" else store.vocab_size,
        "fixed_seconds": fixed,
        "seconds_per_byte": {
            line["stage"]: (line["seconds"] - fixed.get(line["stage"], 0.0)) / total_taken for line in lines if line["event"] == "finished"
        },
        # Of each byte of raw text, so that what filters and deduplication remove is left out.
        "tokens_per_byte": {source: tokens_found / max(1, taken[source]) for source, tokens_found in found.items()},
    }


def index_seconds(run: Path) -> float:
    """Seconds that the index of the evaluation sets took, which is read whole however little text there is; 0 without one."""
    lines = [line for path in run.glob("data/decontaminate/*/timings.jsonl") for line in storage.read_lines(path)]
    return float(sum(line["seconds"] for line in lines if line["phase"] == "index"))


def token_budget(config: RunConfig, parameters: int, tokens: dict[str, int]) -> dict[str, Any]:
    """Tokens that training reads, against the parameters and against what each source has."""
    read = config.train.steps * config.train.batch.global_batch * config.tokens.sequence_length
    weights = {source.name: source.weight * tokens[source.name] for source in config.sources}
    total = sum(weights.values()) or 1.0
    epochs = {name: round(read * weight / total / tokens[name], 3) if tokens[name] else 0.0 for name, weight in weights.items()}
    ratio = read / parameters
    most = max(epochs.values(), default=0.0)
    reference = f"{TOKENS_PER_PARAMETER:.0f} (arXiv:2203.15556)"
    if most > USEFUL_EPOCHS:
        worst = max(epochs, key=lambda name: epochs[name])
        why = f"past {USEFUL_EPOCHS:.0f} epochs repeated text teaches little (arXiv:2305.16264)"
        verdict = f"{worst} is read {most:.1f} times; {why}: more text, or fewer steps"
    elif ratio < TOKENS_PER_PARAMETER / 2:
        verdict = f"under-trained: {ratio:.1f} tokens a parameter, compute-optimal is about {reference}; more steps or a smaller model"
    elif ratio > TOKENS_PER_PARAMETER * 10:
        verdict = (
            f"{ratio:.0f} tokens a parameter, past the compute-optimal {reference}: cheap to serve, but a larger model would learn more"
        )
    else:
        verdict = f"{ratio:.1f} tokens a parameter, near the compute-optimal {reference}"
    return {
        "tokens": read,
        "tokens_per_parameter": round(ratio, 3),
        "reference": TOKENS_PER_PARAMETER,
        "epochs": epochs,
        "verdict": verdict,
    }


def near_duplicates(config: RunConfig) -> list[dict[str, Any]]:
    """Every preset of near-duplicates, and with what probability it sees a pair of a similarity; the run's own settings are marked."""
    rules = config.dedup.document
    return preset_table(None if rules is None else rules.model_dump())


def disk(config: RunConfig, text: int, tokens: int, parameters: int) -> dict[str, int]:
    """Bytes that the run will hold: zstd documents, verdicts and intermediate signatures, tokens, checkpoints."""
    width = 2 if config.tokens.vocab_size <= 1 << 16 else 4
    settings = config.train.checkpoint
    written = settings.keep if settings.every == "auto" else config.train.steps // settings.every + 1
    marked = settings.best + (config.train.steps // settings.milestones if settings.milestones else 0)
    saved = min(settings.keep + marked, written) + 1
    parts = {
        "documents": int(text * 0.45),
        "verdicts": int(text * 0.05),
        "tokens": tokens * width,
        "checkpoints": parameters * CHECKPOINT_BYTES_PER_PARAMETER * saved,
    }
    return {**parts, "all": sum(parts.values())}


def free_bytes(folder: Path) -> int:
    place = folder
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def matmul_flops() -> float:
    """Floating point operations a second of a plain fp32 matrix product on one thread here."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a = torch.ones(512, 512)
        speeds = []
        for _ in range(5):
            started = time.perf_counter()
            for _ in range(4):
                a @ a
            speeds.append(4 * 2 * 512**3 / (time.perf_counter() - started))
        return float(np.median(speeds))
    finally:
        torch.set_num_threads(threads)


def print_plan(plan: dict[str, Any], console: Console) -> None:
    """The plan for a person: configuration first, then what follows from it."""
    console.print(dump_yaml(plan["config"]), highlight=False)
    sources = Table("source", "files", "raw MB", "text MB (estimate)", "tokens (estimate)", "epochs", title="Sources")
    for name, row in plan["sources"].items():
        numbers = [f"{row['files']:,}", f"{row['raw_bytes'] / 1e6:,.1f}", f"{row['text_bytes'] / 1e6:,.1f}", f"{row['tokens']:,}"]
        sources.add_row(name, *numbers, f"{plan['budget']['epochs'][name]:.2f}")
    console.print(sources)
    console.print(_presets(plan["dedup"]))
    rows = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, said in layout_rows(plan["layout"]):
        rows.add_row(name, said)
    rows.add_row("model", f"{plan['model']['parameters']:,} parameters, vocabulary {plan['model']['vocab_size']:,}")
    if plan["start"]:
        replay = f", {plan['start']['replay']:.0%} of the samples from its data" if plan["start"]["replay"] else ""
        rows.add_row("weights", f"begin with those of {plan['start']['checkpoint']}{replay}")
    rows.add_row("token budget", f"{plan['budget']['tokens']:,} tokens: {plan['budget']['verdict']}")
    needed, free = plan["disk_bytes"]["all"], plan["free_bytes"]
    rows.add_row("disk", f"about {needed / 1e9:.2f} GB needed, {free / 1e9:.1f} GB free" + (": TOO LITTLE" if needed > free else ""))
    rows.add_row("time", ", ".join(f"{stage} {_duration(seconds)}" for stage, seconds in plan["seconds"].items()))
    basis = f"a sample of {plan['sample_bytes'] / 1e6:.1f} MB and one matrix product"
    rows.add_row("", f"estimated from {basis}; starts of Ray, about a minute in all, come on top")
    done = [name for name, stage in plan["stages"].items() if stage["done"]]
    rows.add_row("already done", ", ".join(done) or "nothing")
    console.print(rows)


def layout_rows(layout: dict[str, Any]) -> list[tuple[str, str]]:
    """Layout and memory in lines, each with the name of what it says."""
    if layout["bytes"] is None:
        return [("layout", f"{counted(layout['workers'])}, layout auto: {layout['explanation'][0]}")]
    sizes = " x ".join(f"{name} {layout[name]}" for name in ("data", "tensor", "pipeline"))
    also = ", sequence parallel" * layout["sequence"] + ", offload" * layout["offload"]
    idle = f", {layout['idle']} idle" if layout["idle"] else ""
    product = f"{layout['micro_batch']} sequences x {layout['data']} data-parallel x {layout['accumulation_steps']} accumulated"
    lines = [
        f"{counted(layout['workers'])}{idle}: {sizes}, ZeRO {layout['zero']}{also}, {layout['precision']}: {layout['verdict']}",
        f"{product} = {layout['global_batch']} sequences a step",
        *([f"the pipeline idles for {layout['bubble']:.0%} of a step"] if layout["bubble"] else []),
        *layout["explanation"],
        *(f"note: {hint}" for hint in layout["hints"]),
    ]
    need = layout["bytes"]
    parts = ", ".join(f"{name} {as_bytes(need[name])}" for name in ("parameters", "gradients", "optimizer", "activations", "buffers"))
    stage = f" (stage {need['stage']}, the largest)" if layout["pipeline"] > 1 else ""
    has = f" of {as_bytes(need['available'])}" if need["available"] else ""
    host = f", {as_bytes(need['host'])} of it in the host's memory" if need["host"] else ""
    memory = f"{as_bytes(need['total'])}{has} a worker{stage}: {parts}{host}"
    return [("layout", lines[0]), *(("", line) for line in lines[1:]), ("memory", memory)]


def _presets(rows: list[dict[str, Any]]) -> Table:
    title = "Near-duplicates: % of the pairs of a similarity that share a band; (1/b)^(1/r)"
    head = ["  preset", "shingle", "bands", "(1/b)..", *(f"{similarity:.2f}" for similarity in SIMILARITIES), "verified"]
    table = Table(*head, title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for row in rows:
        name = f"> {row['preset']}" if row["chosen"] else f"  {row['preset']}"
        shingle = f"{row['shingle']['size']} {row['shingle']['unit'].replace('acter', '')}"
        seen = [f"{100 * probability:.1f}" for probability in row["probability"].values()]
        verified = f"{row['threshold']:.2f}" if row["verify"] else "no"
        shape = [shingle, f"{row['bands']} x {row['rows']}", f"{row['threshold_estimate']:.3f}"]
        table.add_row(name, *shape, *seen, verified, style="bold" if row["chosen"] else None)
    return table


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
