"""Removal of duplicates; the document level is in `document`."""
