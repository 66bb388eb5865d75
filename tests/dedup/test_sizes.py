"""What is large: a document of 50 MB, 100,000 copies of one, tens of thousands of near copies in one bucket, 450 bands."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np

from headrace import artifact
from headrace.dedup.candidates import BUCKET_LEADERS
from headrace.dedup.document import DocumentDedup
from headrace.dedup.levels import Dedup, deduplicate

WORDS = [f"word{number}" for number in range(5000)]


def removed(folder, units, **document):
    output = deduplicate(units, Dedup(document=DocumentDedup(**document)), folder, "local")
    rows = [row for unit in units for row in artifact.read_table(folder / "removed" / f"{unit['id']}.parquet").to_pylist()]
    return {row["id"]: (row["kept_id"], row["score"]) for row in rows}, Counter(output.units[0]["rejected"])


def test_documents_of_50_megabytes(tmp_path, documents_file):
    rng = np.random.default_rng(1)
    words = np.array(WORDS)[rng.integers(0, len(WORDS), 6_000_000)]
    long = " ".join(words.tolist())
    assert len(long) > 50_000_000
    words[1_000_000:1_200_000] = "other"
    texts = [long, " ".join(words.tolist()), "a short one of more than five words"]
    found, reasons = removed(tmp_path / "out", [documents_file(tmp_path, 0, texts)])
    (gone,) = found
    kept, score = found[gone]
    assert (gone, kept) == ("r0-1", "r0-0")
    # 200,000 of 6 million words give way to one shingle and four at each end; of random ones hardly any repeats another.
    assert abs(score - 5_799_992 / 6_000_005) < 1e-4
    assert reasons == {"near_duplicate": 1}


def test_a_hundred_thousand_copies_leave_one(tmp_path, documents_file):
    text = "The same text of seven words. And more."
    units = [
        documents_file(tmp_path, rank, [text, *([text + " "] * 49_999)], priority=1 - rank, row_group_rows=1 << 16) for rank in range(2)
    ]
    found, _ = removed(tmp_path / "out", units)
    assert len(found) == 99_999
    assert set(found.values()) == {("r1-0", 1.0)}


def test_a_bucket_of_twenty_thousand_near_copies_costs_a_star(tmp_path, documents_file):
    rng = random.Random(2)
    words = rng.choices(WORDS, k=150)
    texts = []
    for number in range(20_000):
        place = rng.randrange(len(words))
        texts.append(" ".join([*words[:place], f"changed{number}", *words[place + 1 :]]))
    folder = tmp_path / "out"
    unit = documents_file(tmp_path, 0, texts, row_group_rows=1 << 16)
    output = deduplicate([unit], Dedup(), folder, "local")
    assert output.units[0]["rejected"] == {"near_duplicate": 19_999}
    pairs = output.units[0]["counters"]["candidate_pairs"]
    assert 20_000 <= pairs <= 14 * BUCKET_LEADERS * 20_000  # and not the 200 million of all with all
    assert output.units[0]["counters"]["verified_pairs"] == pairs


def test_nine_thousand_functions(tmp_path, documents_file):
    rng = random.Random(3)
    words = rng.choices(WORDS, k=200)
    texts = [" ".join(words), " ".join([*words[:100], "new", *words[101:]]), " ".join(rng.choices(WORDS, k=200))]
    found, _ = removed(tmp_path / "out", [documents_file(tmp_path, 0, texts)], preset="refinedweb")
    assert found == {"r0-1": ("r0-0", None)}  # nothing is compared, so nothing is scored
