from __future__ import annotations

import numpy as np
import pytest

from headrace import artifact
from headrace.dedup.token_ids import IDS, IdsSigner, TokenIds, ids_folder
from headrace.text.encoding import encode_texts
from headrace.tokens.tokenizer import train_bpe

TEXTS = ["the cat sat", "", "na łące 😀", "the cat", "", "on a mat"]


@pytest.fixture
def signed(tmp_path):
    tokenizer = train_bpe(TEXTS, 320)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    signer = IdsSigner({"id": "u00003", "token": {"tokenizer": str(tmp_path / "tokenizer.json")}}, tmp_path)
    docs = (3 << 32) + np.array([0, 1, 4, 5, 6, 9])
    signer.add(docs[:3], TEXTS[:3])
    signer.add(docs[3:], TEXTS[3:])
    signer.close()
    return docs, encode_texts(tokenizer, TEXTS), signer, tmp_path


def test_the_ids_of_every_document_are_found_again(signed):
    docs, expected, signer, folder = signed
    table = artifact.read_table(folder / "ids" / "u00003.parquet")
    assert table.schema == IDS
    assert table["bytes"].to_pylist() == [len(text.encode()) for text in TEXTS]
    assert table["spelled"].to_pylist() == [True] * 6
    held = TokenIds.open(ids_folder({"work": str(folder / "work")}), "u00003")
    assert held.ids.dtype == np.uint16
    assert held.doc.tolist() == docs.tolist()
    assert [held.ids[start : start + count].tolist() for start, count in zip(held.start, held.tokens)] == [ids.tolist() for ids in expected]
    assert signer.counters == {"tokens_encoded": sum(map(len, expected))}


def test_documents_are_found_by_number_and_by_token(signed):
    docs, expected, _, folder = signed
    held = TokenIds.open(folder / "ids", "u00003")
    assert held.rows_of(docs[[4, 0]]).tolist() == [4, 0]
    rows = [row for row, ids in enumerate(expected) for _ in ids]
    assert held.rows_at(np.arange(len(rows))).tolist() == rows


def test_a_file_without_tokens_opens(tmp_path):
    train_bpe(TEXTS, 320).save(str(tmp_path / "tokenizer.json"))
    for name, texts in (("u00000", []), ("u00001", [""])):
        signer = IdsSigner({"id": name, "token": {"tokenizer": str(tmp_path / "tokenizer.json")}}, tmp_path)
        signer.add(np.arange(len(texts)), texts)
        signer.close()
        held = TokenIds.open(tmp_path / "ids", name)
        assert (len(held.ids), held.tokens.tolist()) == (0, [0] * len(texts))


def test_pieces_are_joined_document_by_document(signed):
    docs, expected, _, folder = signed
    held = TokenIds.open(folder / "ids", "u00003")
    starts, ends = held.start, held.start + held.tokens
    left = held.pieced(np.array([0, 2, starts[3], starts[5] + 1]), np.array([1, 3, ends[3], ends[5]]), folder / "again", "u00003")
    assert left.doc.tolist() == docs.tolist()
    assert left.tokens.tolist() == [2, 0, 0, len(expected[3]), 0, len(expected[5]) - 1]
    assert left.ids.tolist() == [expected[0][0], expected[0][2], *expected[3], *expected[5][1:]]
    assert left.start.tolist() == [0, 2, 2, 2, left.start[5], left.start[5]]


def test_a_file_that_was_cut_short_is_refused(signed):
    folder = signed[-1]
    path = folder / "ids" / "u00003.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"u00003\.bin: \d+ bytes are not \d+ ids of 16 or 32 bits; delete"):
        TokenIds.open(folder / "ids", "u00003")
