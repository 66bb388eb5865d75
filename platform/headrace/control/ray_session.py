"""A job's connection to the cluster that runs it."""

from __future__ import annotations

import logging

import ray

from headrace.capacity import pool_selector


def connect() -> None:
    """Connect to the cluster that this job was submitted to, quietly: progress is told by events, not by Ray's bars."""
    ray.init(address="auto", logging_level=logging.WARNING, log_to_driver=True)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_rich_progress_bars = False
    context.print_on_execution_start = False
    if data_nodes := pool_selector("data"):
        context.execution_options.label_selector = data_nodes
    logging.getLogger("ray.data").setLevel(logging.WARNING)
