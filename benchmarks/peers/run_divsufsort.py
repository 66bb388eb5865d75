"""pydivsufsort's suffix array of tokens: run_divsufsort.py SPEC. Runs in its own environment.

The tokens are integers in one array; building the array of suffixes is all that is timed, not one repeat is looked for in it.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pydivsufsort


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    tokens = np.load(spec["tokens"])
    started = time.perf_counter()
    suffixes = pydivsufsort.divsufsort(tokens)
    seconds = time.perf_counter() - started
    assert len(suffixes) == len(tokens)
    np.save(Path(spec["work"]) / "suffixes.npy", suffixes)
    (Path(spec["work"]) / "result.json").write_text(json.dumps({"seconds": seconds, "parts": {}}))


if __name__ == "__main__":
    main()
