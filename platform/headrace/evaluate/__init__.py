"""Scores of checkpoints and baselines on held-out text, and continuations of a text."""
