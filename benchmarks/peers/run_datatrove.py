"""datatrove's four MinHash stages over JSON Lines: run_datatrove.py SPEC. Runs in datatrove's own environment.

The seconds are those of its executors, one a stage, reading and writing JSON Lines included. Workers are forked, so that no stage pays
for imports again.
"""

import json
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    work, workers = Path(spec["work"]), spec["workers"]
    config = MinhashConfig(n_grams=5, num_buckets=spec["bands"], hashes_per_bucket=spec["rows"])
    tasks = len(list(Path(spec["inputs"]).glob("*.jsonl")))
    places = {name: str(work / name) for name in ("signatures", "buckets", "remove", "kept")}
    reader = JsonlReader(spec["inputs"], glob_pattern="*.jsonl")
    kept = JsonlWriter(places["kept"], compression=None)
    stages = {
        "signatures": ([reader, MinhashDedupSignature(places["signatures"], config=config)], tasks),
        "buckets": ([MinhashDedupBuckets(places["signatures"], places["buckets"], config=config)], config.num_buckets),
        "cluster": ([MinhashDedupCluster(places["buckets"], places["remove"], config=config)], 1),
        "filter": ([reader, MinhashDedupFilter(places["remove"]), kept], tasks),
    }
    parts = {}
    for name, (pipeline, tasks) in stages.items():
        executor = LocalPipelineExecutor(pipeline, tasks=tasks, workers=workers, logging_dir=str(work / "logs" / name), start_method="fork")
        started = time.perf_counter()
        executor.run()
        parts[name] = time.perf_counter() - started
    ids = []
    for path in sorted((work / "kept").glob("*.jsonl")):
        with path.open(encoding="utf-8", newline="\n") as lines:
            ids += [int(json.loads(line)["id"]) for line in lines]
    (work / "result.json").write_text(json.dumps({"seconds": sum(parts.values()), "parts": parts, "kept": ids}))


if __name__ == "__main__":
    main()
