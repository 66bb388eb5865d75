"""Data-Juicer's ray_bts_minhash_deduplicator over JSON Lines: run_juicer.py SPEC. Runs in Data-Juicer's own environment.

The operator is run once over a few documents first: workers and actors have started then and hold their imports. The seconds are those of
the operator from the dataset to the materialised result; reading is part of it, as Ray Data reads when it is asked.
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import ray
from data_juicer.ops.deduplicator.ray_bts_minhash_deduplicator import RayBTSMinhashDeduplicator


def deduplicated(paths: list[str], spec: dict, work: Path) -> tuple[float, list[int]]:
    operator = RayBTSMinhashDeduplicator(
        tokenization="space",
        window_size=5,
        lowercase=True,
        num_permutations=spec["bands"] * spec["rows"],
        jaccard_threshold=spec["threshold"],
        num_bands=spec["bands"],
        num_rows_per_band=spec["rows"],
        work_dir=str(work),
    )
    operator._ensure_actors()
    dataset = ray.data.read_json(paths)
    started = time.perf_counter()
    result = operator.run(dataset).materialize()
    seconds = time.perf_counter() - started
    ids = [int(each) for batch in result.iter_batches(batch_format="pyarrow") for each in batch["id"].to_pylist()]
    return seconds, ids


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    work = Path(spec["work"])
    paths = sorted(str(path) for path in Path(spec["inputs"]).glob("*.jsonl"))
    few = work / "few"
    few.mkdir()
    for number in range(spec["workers"]):
        with Path(paths[number % len(paths)]).open(encoding="utf-8", newline="\n") as lines:
            (few / f"{number}.jsonl").write_text("".join(line for line, _ in zip(lines, range(8))), encoding="utf-8")
    temp = tempfile.mkdtemp(prefix="dj-", dir="/tmp")  # Ray's sockets need a short path
    ray.init(address="local", num_cpus=spec["workers"], include_dashboard=False, _temp_dir=temp)
    ray.data.DataContext.get_current().enable_progress_bars = False
    deduplicated(sorted(map(str, few.glob("*.jsonl"))), spec, work / "warm")
    seconds, kept = deduplicated(paths, spec, work / "run")
    ray.shutdown()
    shutil.rmtree(temp, ignore_errors=True)
    (work / "result.json").write_text(json.dumps({"seconds": seconds, "parts": {}, "kept": kept}))


if __name__ == "__main__":
    main()
