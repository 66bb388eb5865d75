"""What checkpoints are scored on."""

from __future__ import annotations

from pydantic import PositiveInt

from headrace.config import Config

FAST, BENCHMARKS = "fast", "benchmarks"  # names of the suites


class EvaluateConfig(Config):
    """On how much held-out text every checkpoint and every baseline is scored."""

    max_tokens: PositiveInt = 200_000  # of each source's validation part, the same ones for every checkpoint and baseline
    benchmark_items: PositiveInt | None = 200  # of each evaluation set of `decontaminate`, clean ones and contaminated; null: none
