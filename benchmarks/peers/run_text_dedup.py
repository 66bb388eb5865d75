"""text-dedup's MinHash (xxh3, 32 bit) over JSON Lines: run_text_dedup.py SPEC. Runs in text-dedup's own environment.

Its own command in this process, so that the times of its own stages can be read from its log. Loading and saving are counted apart.
"""

import json
import logging
import re
import sys
from pathlib import Path

import datasets
from text_dedup import minhash


class Stages(logging.Handler):
    """Seconds of each stage, as text-dedup's timer reports them: `MinHashing   : 13.50s`."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        found = re.match(r"(\w+)\s*:\s*([\d.]+)s$", record.getMessage().strip())
        if found:
            self.seconds[found[1]] = float(found[2])


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    work = Path(spec["work"])
    stages = Stages()
    minhash.logger.addHandler(stages)
    minhash.logger.setLevel(logging.INFO)
    arguments = [
        *("--path", "json", "--data_files", f"{spec['inputs']}/*.jsonl", "--split", "train", "--cache_dir", str(work / "cache")),
        *("--output", str(work / "kept"), "--column", "text", "--num_proc", str(spec["workers"]), "--no-clean_cache"),
        *("--num_perm", str(spec["bands"] * spec["rows"]), "--b", str(spec["bands"]), "--r", str(spec["rows"])),
        *("--ngram", "5", "--min_length", "5", "--hash_func", "xxh3", "--hash_bits", "32"),
    ]
    minhash.main(arguments, standalone_mode=False)
    kept = datasets.load_from_disk(str(work / "kept"))["id"]
    # Documents of fewer than five of its words go while it loads, whether or not they repeat another.
    seen = []
    for path in sorted(Path(spec["inputs"]).glob("*.jsonl")):
        with path.open(encoding="utf-8", newline="\n") as lines:
            for document in map(json.loads, lines):
                if len(minhash.NON_ALPHA.split(document["text"].lower())) >= 5:
                    seen.append(document["id"])
    counted = ("MinHashing", "Clustering", "Filtering")
    result = {
        "seconds": sum(stages.seconds[stage] for stage in counted),
        "parts": stages.seconds,
        "kept": [int(each) for each in kept],
        "seen": [int(each) for each in seen],
    }
    (work / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
