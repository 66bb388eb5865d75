"""Removal of evaluation text from training text; `passes` composes it."""
