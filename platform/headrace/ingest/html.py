"""HTML to its main text, from bytes of any charset."""

from __future__ import annotations

import numpy as np
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

# Browsers flatten what is deeper than 512 (kMaximumHTMLParserDOMTreeDepth in Blink). The time to find the main content grows with the
# square of the depth: 0.04 s at 2,048 elements, minutes at 100,000, which a page of 500 KB reaches.
MAX_DEPTH = 2048

# Elements whose end tag is left out or does not exist: they do not nest however many follow each other.
_UNNESTED = (b"br", b"im", b"in", b"me", b"li", b"hr", b"p ", b"p>", b"td", b"tr", b"th", b"dd", b"dt", b"op", b"!-", b"!d")


def main_text(page: str) -> str:
    """The main content of a page: no navigation, comments, bylines or descriptions of images."""
    return extract_plain_text(page, main_content=True, alt_texts=False, comments=False, post_meta=False)


def depth(content: bytes) -> int:
    """How deep the elements of a page nest: an estimate from its tags alone, at least the truth for pages that close what they open."""
    page = np.frombuffer(content.lower() + b"   ", dtype=np.uint8)
    at = np.flatnonzero(page[:-3] == ord("<"))
    closing = page[at + 1] == ord("/")
    name = at + 1 + closing
    pair = page[name].astype(np.uint16) << 8 | page[name + 1]
    letter = (page[name] >= ord("a")) & (page[name] <= ord("z"))
    unnested = [tag[0] << 8 | tag[1] for tag in _UNNESTED]
    nests = letter & ~np.isin(pair, unnested)
    steps = np.where(closing, -1, 1) * nests
    return int(np.cumsum(steps).max(initial=0))


def decode(content: bytes, declared: str | None) -> str:
    """Text of a page in whatever charset it is in.

    UTF-8 where that decodes, since what is declared is often a server's default; else the declared charset, else the page's own meta
    tag, else what its bytes look like. Broken bytes become U+FFFD.
    """
    text = content.decode("utf-8-sig", "replace")
    broken = text.count("\ufffd")
    beyond_ascii = len(content) - len(text) + broken  # a lower bound of the bytes in sound sequences of more than one
    if not broken or beyond_ascii > 10 * broken:
        return text
    named = map_encoding_to_html5(declared, fallback_utf8=False) if declared else None
    if named is None or named == "utf-8":
        named = detect_encoding(content, from_html_meta=True) or "cp1252"
    return bytes_to_str(content, named, errors="replace", fallback_encodings=("cp1252",))
