"""Encoding and the tokenizer's stage on artifacts made by hand: documents, verdicts with cuts, parts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace import artifact, schema, storage
from headrace.artifact import Artifact
from headrace.dedup.token_ids import IDS_KIND, IdsSigner
from headrace.text.encoding import encode_texts
from headrace.tokens import encode
from headrace.tokens.store import StreamWriter
from headrace.tokens.tokenizer import Tokens, train_bpe
from headrace.tokens.train_tokenizer import TOKENIZER, make_tokenizer

TEXTS = [
    "zażółć gęślą jaźń. To zdanie znika. Koniec",
    "rejected before",
    "nothing is cut here",
    "held out of training: 0123456789 & co",
    "",
    "all of this goes",
]
PARTS = ["train", "train", "train", "validation", "train", "train"]
CUTS = [(0, 19, 36), (0, 30, 36), (5, 0, 16)]


def committed(folder, stage, **kinds):
    """An artifact of one unit from {kind: table}."""
    entries = []
    for kind, table in kinds.items():
        artifact.write_table(table, folder / kind / "u00000.parquet")
        entries.append(storage.file_entry(folder, folder / kind / "u00000.parquet"))
    unit = {"id": "u00000", "source": "s", "files": entries}
    text = sum(len(text.encode()) for text in TEXTS)
    storage.write_json(folder / artifact.MANIFEST, {"stage": stage, "fingerprint": stage, "units": [unit], "totals": {"text_bytes": text}})
    return Artifact.open(folder)


@pytest.fixture
def corpus(tmp_path):
    rows = [
        dict.fromkeys(schema.DOCUMENTS.names) | {"doc": row, "id": f"d{row}", "text": text, "source": "s"} for row, text in enumerate(TEXTS)
    ]
    documents = committed(tmp_path / "ingest", "ingest", documents=pa.Table.from_pylist(rows, schema=schema.DOCUMENTS))
    reasons = pa.table({"reason": pa.array([None, "x", None, None, None, None], pa.string())})
    removed = [
        {"doc": doc, "id": f"d{doc}", "level": "sentence", "start": start, "end": end, "kept_id": "d0", "score": 1.0}
        for doc, start, end in CUTS
    ]
    dedup = committed(tmp_path / "dedup", "dedup", verdicts=reasons, removed=pa.Table.from_pylist(removed, schema=schema.REMOVED))
    split = committed(tmp_path / "split", "split", verdicts=pa.table({"reason": pa.array(PARTS, pa.string())}))
    return documents, dedup, split


def test_the_store_holds_what_no_stage_rejected_or_cut(corpus, tmp_path):
    documents, dedup, split = corpus
    (tmp_path / "tokenizer").mkdir()
    train_bpe(TEXTS, 400).save(str(tmp_path / "tokenizer" / TOKENIZER))
    storage.write_json(tmp_path / "tokenizer" / artifact.MANIFEST, {"fingerprint": "t", "units": [], "files": []})
    out = tmp_path / "out"
    out.mkdir()
    given = Artifact.open(tmp_path / "tokenizer")
    done = encode.encode(documents, [dedup], split, given, None, Tokens(sequence_length=8), out, "local")
    tokenizer = train_bpe(TEXTS, 400)
    expected = {
        "train": ["zażółć gęślą jaźń. Koniec", "nothing is cut here", "", ""],
        "validation": ["held out of training: 0123456789 & co"],
    }
    for part, texts in expected.items():
        writer = StreamWriter(tmp_path / "expected", "u00000", part, tokenizer.get_vocab_size())
        for text in texts:
            writer.add(0, [*tokenizer.encode(text).ids, tokenizer.token_to_id("<|endoftext|>")], len(text.encode()))
        writer.close()
        assert (out / "tokens" / part / "u00000.bin").read_bytes() == (tmp_path / "expected" / "tokens" / part / "u00000.bin").read_bytes()
        assert done.units[0]["counters"][f"{part}_bytes"] == sum(len(text.encode()) for text in texts)
    assert done.units[0]["rows_in"] == done.units[0]["rows_out"] == 5


def test_ids_that_deduplication_has_made_are_not_made_again(corpus, tmp_path, monkeypatch):
    documents, dedup, split = corpus
    (tmp_path / "tokenizer").mkdir()
    train_bpe(TEXTS, 400).save(str(tmp_path / "tokenizer" / TOKENIZER))
    storage.write_json(tmp_path / "tokenizer" / artifact.MANIFEST, {"fingerprint": "t", "units": [], "files": []})
    given = Artifact.open(tmp_path / "tokenizer")
    (dedup.folder / IDS_KIND).mkdir()
    signer = IdsSigner({"id": "u00000", "token": {"tokenizer": str(given.folder / TOKENIZER)}}, dedup.folder)
    signer.add(np.arange(len(TEXTS)), TEXTS)
    signer.close()
    encoded = []
    monkeypatch.setattr(encode, "encode_texts", lambda tokenizer, texts: encoded.extend(texts) or encode_texts(tokenizer, texts))
    for name, held in (("again", None), ("once", dedup)):
        (tmp_path / name).mkdir()
        encode.encode(documents, [dedup], split, given, held, Tokens(sequence_length=8), tmp_path / name, "local")
    assert len(encoded) == 5 + 2  # all, then the two that lost something
    assert encoded[5:] == ["zażółć gęślą jaźń. Koniec", ""]
    for part in ("train", "validation"):
        once, again = ((tmp_path / name / "tokens" / part / "u00000.bin").read_bytes() for name in ("once", "again"))
        assert once == again


def test_the_tokenizer_is_trained_on_what_is_left_of_the_training_part(corpus, tmp_path):
    documents, dedup, split = corpus
    for name, verdicts, parts, texts in (
        ("late", [dedup], split, ["zażółć gęślą jaźń. Koniec", "nothing is cut here", "", ""]),
        ("early", [], None, TEXTS),  # before deduplication there is no verdict of it, and no part
    ):
        (tmp_path / name).mkdir()
        config = Tokens(vocab_size=330, sequence_length=8)
        done = make_tokenizer(documents, verdicts, parts, config, 0, tmp_path / name, "local")
        assert storage.read_json(tmp_path / name / TOKENIZER)["model"] == storage_model(train_bpe(texts, 330), tmp_path)
        assert done.units[0]["rows_in"] == len(texts)
        assert [entry["path"] for entry in done.files] == [TOKENIZER]


def storage_model(tokenizer, folder):
    tokenizer.save(str(folder / "saved.json"))
    return storage.read_json(folder / "saved.json")["model"]
