"""Where a run's time goes: each data stage on Ray against the same stage in one process, a training step against a plain torch loop.

python benchmarks/flow.py [--json] [--only ROW] [--repeats N] [--times 10]. The corpus is HEADRACE_CORPUS (a folder of
*.jsonl.zst), or the text of this machine's own Python where that is not set. A start of Ray is not in the rows but printed beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from corpora import corpus, grown
from headrace import artifact, pipeline, storage
from headrace.batches import Loader, Order
from headrace.config import validate
from headrace.model.aux import decoder_aux
from headrace.model.sequential import build_model
from headrace.run import RunConfig
from headrace.tokens.store import TokenStore
from headrace.train.schedule import learning_rate
from headrace.train.spec import TrainSpec, train_spec
from headrace.train.worker import train
from rows import CORES, row, show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--only", help="rows whose work begins with this")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; medians are printed")
    parser.add_argument("--times", type=int, default=1, help="run the data stages once more on so many times the corpus, by synthesis")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        sources = corpus(folder)
        rows: list[dict[str, Any]] = []
        if not arguments.only or not arguments.only.startswith("train"):
            rows += data_rows(folder, sources, arguments.repeats)
            if arguments.times > 1:
                larger = data_rows(folder / "larger", grown(folder / "larger", sources, arguments.times), repeats=1)
                rows += [{**row, "work": f"{row['work']}, {arguments.times} x the corpus"} for row in larger]
        if not arguments.only or arguments.only.startswith("train"):
            rows += train_rows(folder, sources, arguments.repeats)
    rows = [row for row in rows if not arguments.only or row["work"].startswith(arguments.only)]
    show("flow", rows, arguments.json)


def config_of(folder: Path, sources: list[dict[str, Any]]) -> RunConfig:
    values = {
        "out": str(folder),
        "sources": sources,
        "split": {"validation": 0.03},
        "tokens": {"vocab_size": 4096, "sequence_length": 128},
        "model": {"layers": 4, "hidden": 256, "heads": 4, "kv_heads": 2},
        "train": {"steps": 24, "batch": {"global": 8, "micro": 8}, "layout": {"data": 1, "zero": 1}, "checkpoint": {"initial": False}},
    }
    return validate(RunConfig, values, "benchmarks/flow.py")


def data_rows(folder: Path, sources: list[dict[str, Any]], repeats: int) -> list[dict[str, Any]]:
    """A row a stage: seconds on Ray against seconds in process, the MB/s of both, and what of the time on Ray is Ray's."""
    import ray

    temp = tempfile.mkdtemp(prefix="hrb-", dir="/tmp")
    started = time.perf_counter()
    ray.init(num_cpus=CORES, include_dashboard=False, _temp_dir=temp, logging_level="ERROR", log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    start_s = time.perf_counter() - started
    seconds: dict[str, dict[str, list[float]]] = {}
    shares: dict[str, list[float]] = {}
    manifests: dict[str, dict[str, str]] = {"ray": {}, "local": {}}
    text = 0
    try:
        if repeats > 1:
            curate(folder / "warm", sources, "ray")  # compiled kernels, imported modules: nothing beside a larger corpus
        for number in range(repeats):
            for engine in ("ray", "local"):
                run = curate(folder / f"{engine}-{number}", sources, engine)
                for event in storage.read_lines(run / "events.jsonl"):
                    if event["event"] == "finished":
                        seconds.setdefault(event["stage"], {}).setdefault(engine, []).append(event["seconds"])
                for stage in seconds:
                    made = next((run / "data" / stage).iterdir())
                    manifests[engine][stage] = (made / artifact.MANIFEST).read_text()
                    if engine == "ray":
                        work = sum(line["seconds"] for line in storage.read_lines(made / "timings.jsonl"))
                        shares.setdefault(stage, []).append(1 - work / CORES / seconds[stage]["ray"][-1])
                    if stage == "ingest":
                        text = json.loads(manifests[engine][stage])["totals"]["text_bytes"]
    finally:
        ray.shutdown()
    rows = []
    for stage, both in seconds.items():
        ours, theirs = statistics.median(both["ray"]), statistics.median(both["local"])
        share = statistics.median(shares[stage])
        against = f"one process without Ray; {text / 1e6 / ours:.2f} against {text / 1e6 / theirs:.2f} MB/s; Ray's share {share:.0%}"
        equal = manifests["ray"][stage] == manifests["local"][stage]
        rows.append(row(f"data: {stage}", against, theirs / ours, ours, theirs, "s", equal))
    ours = statistics.median(map(sum, zip(*(both["ray"] for both in seconds.values()), strict=True)))
    theirs = statistics.median(map(sum, zip(*(both["local"] for both in seconds.values()), strict=True)))
    against = f"one process without Ray; {text / 1e6:.1f} MB of text; the start of Ray, {start_s:.1f} s, comes on top"
    rows.append(row("data: all stages", against, theirs / ours, ours, theirs, "s", all(each["equal"] for each in rows)))
    return rows


def curate(run: Path, sources: list[dict[str, Any]], engine: Any) -> Path:
    pipeline.curate(config_of(run, sources), engine)
    return run


def train_rows(folder: Path, sources: list[dict[str, Any]], repeats: int) -> list[dict[str, Any]]:
    """Tokens a second of the worker (DeepSpeed engine, one rank, one thread) against the same model, data and optimizer in plain torch."""
    torch.set_num_threads(1)
    tokens = pipeline.curate(config_of(folder / "train", sources), "local").folder
    ours, theirs, losses = [], [], []
    for number in range(repeats):
        config = config_of(folder / f"train-{number}", sources)
        train(train_spec(config, tokens))
        metrics = storage.read_lines(config.folder / "train" / "metrics.jsonl")
        ours.append(statistics.median(line["tokens_per_s"] for line in metrics[4:]))
        spec = TrainSpec.read(train_spec(config, tokens))
        speed, loss = plain_loop(spec)
        theirs.append(speed)
        losses.append(abs(loss - metrics[-1]["loss"]))
    ratio = statistics.median(ours) / statistics.median(theirs)
    against = f"the same model in a plain torch loop; last losses differ by {max(losses):.1e}"
    work = "train: a step in the worker, ZeRO 1"
    return [row(work, against, ratio, statistics.median(ours), statistics.median(theirs), "tokens/s", max(losses) < 1e-3)]


def plain_loop(spec: TrainSpec) -> tuple[float, float]:
    """Median tokens a second and last loss of the loop that one would write without any of this: no engine, no ranks, one batch a step."""
    store = TokenStore.open(spec.tokens)
    batch, steps, peak = spec.train.batch.global_batch, spec.train.steps, spec.train.optimizer
    order = Order(spec.seed, {name: store.num_sequences(name, "train") for name in store.sources}, spec.mixture)
    loader = Loader(store, order, batch, batch, 0, 1)
    model = build_model(spec.model.sized(store.vocab_size, store.sequence_length), spec.seed)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim >= 2) == wanted] for wanted in (True, False))
    groups = [{"params": matrices, "weight_decay": peak.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=peak.betas, eps=peak.eps, fused=True)
    speeds, last = [], math.nan
    for step in range(steps):
        started = time.perf_counter()
        sequences = torch.from_numpy(loader.read(step))
        inputs, targets = sequences[:, :-1].contiguous(), sequences[:, 1:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spec.train.schedule, peak.lr, step, steps)
        logits = model(inputs, decoder_aux(inputs, store.eos))
        # What follows an end-of-text token belongs to another document and is no target.
        loss = F.cross_entropy(logits.flatten(0, 1), targets.masked_fill(inputs == store.eos, -100).flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), peak.clip or math.inf)
        optimizer.step()
        last = float(loss.detach())
        speeds.append(inputs.numel() / (time.perf_counter() - started))
    return statistics.median(speeds[4:]), last


if __name__ == "__main__":
    main()
