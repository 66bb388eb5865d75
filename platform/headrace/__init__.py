"""Headrace: raw text to a trained, scored language model on Ray."""

__version__ = "0.1.0"
