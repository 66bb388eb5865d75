"""What each level leaves behind, to the byte: whatever the order of the units, the partitions and the batches, and after any kill."""

from __future__ import annotations

import pytest

from headrace import shuffle, verdicts
from headrace.dedup import token_level
from headrace.dedup.document import DocumentDedup
from headrace.dedup.levels import Dedup, deduplicate
from headrace.dedup.sentence import SentenceDedup
from headrace.dedup.token_level import TokenDedup

SENTENCES = SentenceDedup(min_words=20, min_units=2)
LINES = SentenceDedup(unit="line", span=1, min_words=0, min_units=1)
DOCUMENT = Dedup(document=DocumentDedup(bands=64, rows=1))
SENTENCE = Dedup(document=DocumentDedup(), sentence=SENTENCES)
TOKEN = Dedup(document=DocumentDedup(), sentence=LINES, token=TokenDedup(min_tokens=12, min_words=9, passes=2))


@pytest.mark.parametrize(
    "planted, config, partition_bytes, partitioned, least",
    [
        ("edited_documents", DOCUMENT, 6000, "candidates", 10),
        ("repeated_sentences", SENTENCE.model_copy(update={"document": None}), 1500, "repeated-spans", 10),
        ("shared_passages", TOKEN, 1000, "shared", 5),
    ],
    ids=["document", "sentence", "token"],
)
def test_neither_the_order_of_units_nor_partitions_nor_batches_change_a_byte(
    tmp_path, request, tokenizer, contents, monkeypatch, planted, config, partition_bytes, partitioned, least
):
    units = request.getfixturevalue(planted)(tmp_path)
    records = deduplicate(units, config, tmp_path / "out", "local", tokenizer).units
    expected = contents(tmp_path / "out")
    monkeypatch.setattr(shuffle, "PARTITION_BYTES", partition_bytes)
    monkeypatch.setattr(token_level, "CHUNK_SEGMENTS", 3)
    monkeypatch.setattr(verdicts, "BATCH_BYTES", 100)
    assert deduplicate(units[::-1], config, tmp_path / "again", "local", tokenizer).units == records
    assert len(list((tmp_path / "again" / "work" / partitioned).glob("*.parquet"))) > least
    assert contents(tmp_path / "again") == expected


OF_DOCUMENTS = {"shingles", "signatures", "bands", "groups", "verify", "verdicts", "document"}
OF_SENTENCES = {*OF_DOCUMENTS, "spans", "sentence"}
OF_TOKENS = {*OF_SENTENCES, "fingerprints", "windows", "ranges", "fingerprints-2", "windows-2", "ranges-2", "token"}


@pytest.mark.parametrize(
    "planted, config, partition_bytes, phases, every",
    [
        ("edited_documents", DOCUMENT, 8000, OF_DOCUMENTS, 9),
        ("repeated_sentences", SENTENCE, 6000, OF_SENTENCES, 9),
        ("shared_passages", TOKEN, 8000, OF_TOKENS, 15),
    ],
    ids=["document", "sentence", "token"],
)
def test_a_run_killed_in_any_phase_ends_in_the_same_bytes(
    tmp_path, request, tokenizer, contents, killed_copies, monkeypatch, planted, config, partition_bytes, phases, every
):
    monkeypatch.setattr(shuffle, "PARTITION_BYTES", partition_bytes)
    units = request.getfixturevalue(planted)(tmp_path)
    whole = tmp_path / "whole"
    output = deduplicate(units, config, whole, "local", tokenizer)
    expected = contents(whole)
    assert {path.parent.name for path in whole.rglob("done/*/*")} == phases
    killed = killed_copies(whole, 3, every, "work/.aside-verify-u00001-1234")
    assert len(killed) >= 10
    for folder in killed:
        assert deduplicate(units, config, folder, "local", tokenizer) == output
        assert contents(folder) == expected
