"""Personal data in texts, replaced by ingest so that it never lands on disk.

E-mail addresses and public IPv4 addresses as FineWeb does (Penedo et al. 2024, arXiv:2406.17557, appendix; `formatters/pii.py` of
datatrove), with rules of our own for what they mistake, and beyond it telephone numbers in international form and bank accounts
(IBAN). Names, postal addresses and IPv6 are left.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

EMAIL, IP, PHONE, IBAN = "email@example.com", "203.0.113.1", "+1 202 555 0100", "GB00 XXXX 0000 0000 0000 00"
"""What stands in their place: reserved for examples (RFC 2606, RFC 5737, the North American numbering plan), so nobody's."""

CLASSES = ("email", "iban", "ip", "phone")
Mask = Callable[[str, Counter[str]], str]

# Rows in which RE2 finds nothing of a class, at 700 MB/s and more, are not looked at by Python, whose patterns do 45 MB/s.
_SUSPECT = {
    "email": "@",
    "iban": r"[A-Z]{2}\d\d ?[A-Z0-9]{4}",
    "phone": r"\+[1-9](\d|[ \x{a0}./(-])",
    "ip": r"\d\.\d{1,3}\.\d{1,3}\.\d",
}

_LOCAL = re.compile(r"[\w.+%-]{1,64}\Z")  # RFC 5321: 64 octets
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w(\[])")
_QUAD = re.compile(r"(?<![\w.])(?<![vV]\.)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w])(?!\.\d)")
_NUMBERED = re.compile(r"(?:\bv|\bver|version|release|section|sections|rev|revision|chapter|§|==|>=|<=|~=)[.: ]{0,2}\Z", re.IGNORECASE)
_PHONE = re.compile(r"\+[1-9](?:[ \u00a0./-]?\(?\d\)?|[ \u00a0][/-][ \u00a0](?=\d)){7,18}(?!\d)")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")

# Characters of an IBAN by country (ISO 13616, the SWIFT registry).
_IBAN_LENGTHS = {
    length: frozenset(countries.split())
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH CR HR LI LV",
        22: "BG BH DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
}


def masked_column(texts: pa.Array) -> tuple[pa.Array, Counter[str]]:
    """Texts without personal data, and how much of each class was masked.

    Args:
        texts: strings [N], null allowed.
    """
    counts: Counter[str] = Counter()
    suspects = {kind: pc.fill_null(pc.match_substring_regex(texts, pattern), False) for kind, pattern in _SUSPECT.items()}
    suspect = functools.reduce(pc.or_, suspects.values())
    if not pc.any(suspect).as_py():
        return texts, counts
    masked = texts.filter(suspect).to_pylist()
    for kind, found in suspects.items():
        for row in pc.indices_nonzero(found.filter(suspect)).to_pylist():
            masked[row] = _MASKS[kind](masked[row], counts)
    return pc.replace_with_mask(texts, suspect, pa.array(masked, texts.type)), counts


def masked_metadata(objects: pa.Array) -> tuple[pa.Array, Counter[str]]:
    """JSON objects, keys sorted, with personal data masked in their strings; see `masked_column`."""
    counts: Counter[str] = Counter()
    suspect = pc.fill_null(pc.match_substring_regex(objects, "|".join(_SUSPECT.values())), False)
    if not pc.any(suspect).as_py():
        return objects, counts
    # Value by value: in the JSON text the n of an escaped newline would count as the beginning of an address.
    masked = [
        orjson.dumps(_masked_value(orjson.loads(text), counts), option=orjson.OPT_SORT_KEYS).decode()
        for text in objects.filter(suspect).to_pylist()
    ]
    return pc.replace_with_mask(objects, suspect, pa.array(masked, objects.type)), counts


def _masked_value(value: Any, counts: Counter[str]) -> Any:
    if isinstance(value, str):
        return mask(value, counts)
    if isinstance(value, list):
        return [_masked_value(item, counts) for item in value]
    if isinstance(value, dict):
        return {key: _masked_value(item, counts) for key, item in value.items()}
    return value


def mask(text: str, counts: Counter[str]) -> str:
    """The text with every e-mail address, IBAN, international telephone number and public IPv4 address replaced; adds to `counts`."""
    for kind in _SUSPECT:
        text = _MASKS[kind](text, counts)
    return text


def _replacing(pattern: re.Pattern[str], holds: Callable[[re.Match[str]], bool], placeholder: str, kind: str) -> Mask:
    """The function that puts a placeholder where a pattern matches and `holds` agrees."""

    def masked(text: str, counts: Counter[str]) -> str:
        def replacement(match: re.Match[str]) -> str:
            if match.group() == placeholder or not holds(match):
                return match.group()
            counts[kind] += 1
            return placeholder

        return pattern.sub(replacement, text)

    return masked


def _without_emails(text: str, counts: Counter[str]) -> str:
    """From each @ outwards: a pattern that begins with the local part takes quadratic time on a long run of letters without an @."""
    kept, end = [], 0
    at = text.find("@")
    while at >= 0:
        local = _LOCAL.search(text, max(end, at - 64), at)
        domain = _DOMAIN.match(text, at + 1) if local else None
        if local and domain and text[local.start() : domain.end()] != EMAIL:
            kept += [text[end : local.start()], EMAIL]
            end = domain.end()
            counts["email"] += 1
        at = text.find("@", at + 1)
    kept.append(text[end:])
    return "".join(kept)


def _is_address(match: re.Match[str]) -> bool:
    """Whether four numbers are an address that somebody may have, rather than a version or a section.

    Private, loopback and multicast addresses and net masks are nobody's in particular and are kept, as FineWeb does; the networks that
    are reserved for documentation are masked all the same. Four numbers of which the first three are below 20 are taken for a version
    (3.11.0.1, Firefox 2.0.0.16): one address in two thousand is like that, most of them name servers.
    """
    try:
        address = ipaddress.IPv4Address(match.group())
    except ValueError:
        return False
    if all(number < 20 for number in address.packed[:3]):
        return False
    if not (address.is_global or any(address in network for network in _DOCUMENTATION)) or address.is_multicast:
        return False
    return _NUMBERED.search(match.string, max(0, match.start() - 12), match.start()) is None


_DOCUMENTATION = tuple(ipaddress.IPv4Network(network) for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"))


def _is_phone(match: re.Match[str]) -> bool:
    """Whether a plus and digits are a telephone number: 8 to 15 digits (ITU-T E.164), written in groups, and no sum or exponent."""
    number = match.group()
    before = match.string[match.start() - 1] if match.start() else " "
    digits = sum(character.isdigit() for character in number)
    groups = re.split(r"[^\d]+", number[1:])
    return 8 <= digits <= 15 and not before.isalnum() and before not in "+)]}=*^_" and (len(groups) > 1 or digits >= 10)


def _is_iban(match: re.Match[str]) -> bool:
    """Whether letters and digits are an account: the length is that of their country, and they are grouped in fours or the check holds."""
    account = match.group().replace(" ", "")
    if account[:2] not in _IBAN_LENGTHS.get(len(account), ()):
        return False
    grouped = " ".join(account[place : place + 4] for place in range(0, len(account), 4))
    return match.group() == grouped or int("".join(str(int(character, 36)) for character in account[4:] + account[:4])) % 97 == 1


_MASKS: dict[str, Mask] = {
    "email": _without_emails,
    "iban": _replacing(_IBAN, _is_iban, IBAN, "iban"),
    "phone": _replacing(_PHONE, _is_phone, PHONE, "phone"),
    "ip": _replacing(_QUAD, _is_address, IP, "ip"),
}
