import json
from collections import Counter, defaultdict

import pyarrow as pa
import pytest
import zstandard

from headrace.ingest.personal_data import EMAIL, IBAN, IP, PHONE, mask, masked_column, masked_metadata

MASKED = [
    ("Write to jan.nowak40@example.org", f"Write to {EMAIL}", "email"),
    ("mailto:a_b+c@mail.example.co.uk.", f"mailto:{EMAIL}.", "email"),
    ("<müller@exämple.de>", f"<{EMAIL}>", "email"),
    ("joined [n=zdra@di-pc69.ulb.ac.be]", f"joined [n={EMAIL}]", "email"),
    ("Source: 192.0.2.70", f"Source: {IP}", "ip"),
    ("from 86.43.86.33, twice", f"from {IP}, twice", "ip"),
    ("http://208.67.222.222:80/x", f"http://{IP}:80/x", "ip"),
    ("Reach me at +48 22 555 01 21", f"Reach me at {PHONE}", "phone"),
    ("+49 (0) 89-98103987", PHONE, "phone"),
    ("Tel: +592-225-8482.", f"Tel: {PHONE}.", "phone"),
    ("+48225550121", PHONE, "phone"),
    ("IBAN: GB82 WEST 1234 5698 7654 27", f"IBAN: {IBAN}", "iban"),
    ("IBAN DE54 5205 0353 0002 0650 69\nKasse", f"IBAN {IBAN}\nKasse", "iban"),
    ("GB82WEST12345698765432", IBAN, "iban"),
]


@pytest.mark.parametrize("text, expected, kind", MASKED, ids=lambda value: value[:20])
def test_personal_data_is_replaced_and_counted(text, expected, kind):
    counts = Counter()
    assert mask(text, counts) == expected
    assert counts == {kind: 1}


KEPT = [
    "a decorator @cached and a handle @somebody",
    "x = weights @ values.T",
    "y = A@B.transpose(0, 1)",
    "user@localhost",
    "127.0.0.1, 10.1.2.3, 192.168.1.100, 0.0.0.0, 255.255.255.0, 224.0.0.1",
    "Firefox 2.0.0.16, McAfee Stinger 12.2.0.79, section 8.1.2.2",
    "version 60.1.22.3, v99.20.30.40, numpy==21.30.40.50",
    "1.2.3.4.5, 256.300.1.1, 216.08.094.196, 1.22.333.4444",
    "2+48225550121, a +48 b, +1 and +2, c++, +12345",
    "1e+10000000",
    "3702 0500 0008 0901 00",
    "GB82WEST12345698765427",  # in one piece, and the check digits are wrong
    "AB12 3456 7890 1234 5678 90",  # no such country
    "DE54 5205 0353 0002 0650",  # too short for Germany
]


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_like_it_is_kept(text):
    counts = Counter()
    assert mask(text, counts) == text
    assert not counts


def test_masking_twice_changes_nothing_more():
    once = mask("a@example.org 198.51.100.7 +48 22 555 01 21 GB82 WEST 1234 5698 7654 27", Counter())
    again = Counter()
    assert mask(once, again) == once == f"{EMAIL} {IP} {PHONE} {IBAN}"
    assert not again


def test_many_addresses_in_one_text():
    counts = Counter()
    assert mask("a@b.org,c@d.org;e@f.org@g.org", counts) == f"{EMAIL},{EMAIL};{EMAIL}@g.org"
    assert counts["email"] == 3


@pytest.mark.timeout(20)
@pytest.mark.parametrize("part", ["a", "a.", "1.", "+1 ", "DE12 ", "@"])
def test_hostile_texts_take_no_quadratic_time(part):
    mask(part * (200_000 // len(part)) + "@b", Counter())


def test_a_column_is_masked_as_its_texts_are():
    texts = [text for text, _, _ in MASKED] + KEPT
    column, counts = masked_column(pa.array([*texts, None, "nothing"]))
    assert column.to_pylist() == [expected for _, expected, _ in MASKED] + KEPT + [None, "nothing"]
    assert counts == Counter(kind for _, _, kind in MASKED)
    untouched = pa.array(["nothing", None])
    assert masked_column(untouched)[0] is untouched


def test_metadata_stays_json():
    written = json.dumps({"by": "line\njan@example.org", "list": [{"ip": "86.43.86.33"}, 4], "x": "y"})
    column, counts = masked_metadata(pa.array([written, None, '{"n":1}']))
    assert [value and json.loads(value) for value in column.to_pylist()] == [
        {"by": f"line\n{EMAIL}", "list": [{"ip": IP}, 4], "x": "y"},
        None,
        {"n": 1},
    ]
    assert counts == {"email": 1, "ip": 1}


def test_everything_planted_in_the_corpus_is_masked(shared):
    def rows(path):
        return map(json.loads, zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).decode().split("\n")[:-1])

    folder = shared / "data" / "corpus"
    planted = defaultdict(list)
    for row in rows(folder / "truth.jsonl.zst"):
        if row["kind"] == "personal_data":
            planted[row["id"]].append(row)
    left, total = Counter(), Counter()
    for path in sorted(folder.glob("*-0*.jsonl.zst")):
        for row in rows(path):
            for truth in planted.get(row["id"], []):
                total[truth["class"]] += 1
                left[truth["class"]] += truth["value"] in mask(row["text"], Counter())
    assert total == {"email": 20, "ip": 20, "phone": 20, "iban": 20}
    assert not +left
