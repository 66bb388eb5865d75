"""Tokenizers, encoding, and the packed token store."""
