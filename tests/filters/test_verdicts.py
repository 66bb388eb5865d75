import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import artifact, schema
from headrace.filters import CodeQuality, GopherQuality, GopherRepetition, annotate, verdicts
from headrace.filters.verdicts import filter_unit

PROSE = (
    "The keeper of the old lighthouse had been told to have patience with visitors, and so he would climb every stair beside them, "
    "explain how a lamp was trimmed before sunrise, name ships that passed far below, then offer bread and tea at a small round table. "
    "Nobody left hungry; few forgot his stories of winter storms, lost cargo or that whale which once slept against the rocks."
)
TEXTS = [PROSE, "too short", "", PROSE + "# " * 30, "漢字 " * 60, PROSE.upper(), "spam\n" * 80]
CHAIN = (GopherQuality(), GopherRepetition())
REASONS = [
    None,
    "gopher_quality:too_few_words",
    "gopher_quality:too_few_words",
    "gopher_quality:too_many_hashes",
    "gopher_quality:words_too_short",
    None,
    "gopher_quality:too_few_stop_words",
]


def write_documents(path, texts, row_group_rows=1 << 20):
    rows = len(texts)
    columns = {
        "doc": [schema.first_doc(3) + row for row in range(rows)],
        "id": [f"d{row}" for row in range(rows)],
        "text": texts,
        "source": ["web"] * rows,
        "lang": [None] * rows,
        "url": [None] * rows,
        "meta": [None] * rows,
    }
    artifact.write_table(pa.table(columns, schema=schema.DOCUMENTS), path, row_group_rows)


def unit(path, chain=CHAIN):
    return {"id": "u00003", "documents": str(path), "chain": [rule.model_dump(mode="json") for rule in chain]}


def digest(folder):
    return hashlib.sha256((folder / "verdicts" / "u00003.parquet").read_bytes()).hexdigest()


def test_a_unit_is_judged_row_by_row_and_accounted_for(tmp_path):
    write_documents(tmp_path / "documents.parquet", TEXTS)
    result = filter_unit(unit(tmp_path / "documents.parquet"), tmp_path)
    written = artifact.read_table(tmp_path / "verdicts" / "u00003.parquet")
    assert written["doc"].to_pylist() == [schema.first_doc(3) + row for row in range(len(TEXTS))]
    assert written["reason"].to_pylist() == REASONS
    assert written.column_names[2:] == [
        name for name in written.column_names if name in {*GopherQuality.measures, *GopherRepetition.measures}
    ]
    assert (result.rows_in, result.rows_out) == (7, 2)
    assert result.rejected == {reason: REASONS.count(reason) for reason in sorted(filter(None, REASONS))}
    sizes = [len(text.encode()) for text in TEXTS]
    assert result.counters == {"text_bytes": sum(sizes), "text_bytes_kept": sizes[0] + sizes[5]}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()].count("u00003.parquet") == 1


def test_output_bytes_do_not_depend_on_batches_or_row_groups(tmp_path, monkeypatch):
    texts = TEXTS * 9
    write_documents(tmp_path / "whole.parquet", texts)
    write_documents(tmp_path / "cut.parquet", texts, row_group_rows=10)
    monkeypatch.setattr(verdicts, "ROW_GROUP_ROWS", 25)
    results = []
    for rows, size, name in [(512, 8 << 20, "whole"), (1, 8 << 20, "whole"), (7, 8 << 20, "cut"), (25, 1, "whole"), (512, 900, "cut")]:
        monkeypatch.setattr(verdicts, "BATCH_ROWS", rows)
        monkeypatch.setattr(verdicts, "BATCH_BYTES", size)
        folder = tmp_path / f"{rows}-{size}-{name}"
        results.append((filter_unit(unit(tmp_path / f"{name}.parquet"), folder), digest(folder)))
    assert results == results[:1] * len(results)
    file = pq.ParquetFile(folder / "verdicts" / "u00003.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [25, 25, 13]
    assert file.read()["reason"].to_pylist() == REASONS * 9


def test_batches_are_bounded_in_bytes(tmp_path, monkeypatch):
    write_documents(tmp_path / "documents.parquet", [f"{i} " * 4000 for i in range(10, 74)])
    monkeypatch.setattr(verdicts, "BATCH_BYTES", 50_000)
    seen = []
    monkeypatch.setattr(verdicts, "annotate", lambda docs, chain: seen.append(docs["text"].nbytes) or annotate(docs, chain))
    filter_unit(unit(tmp_path / "documents.parquet"), tmp_path)
    assert sum(seen) >= 64 * 12_000
    assert max(seen) < 64_000  # bytes of text and of offsets


@pytest.mark.parametrize("chain", [(), (CodeQuality(),)])
@pytest.mark.parametrize("texts", [[], ["x = 1\n"]])
def test_empty_chains_and_empty_files(tmp_path, chain, texts):
    write_documents(tmp_path / "documents.parquet", texts)
    result = filter_unit(unit(tmp_path / "documents.parquet", chain), tmp_path)
    written = artifact.read_table(tmp_path / "verdicts" / "u00003.parquet")
    assert written["reason"].to_pylist() == [None] * len(texts)
    assert set(written.column_names) == {"doc", "reason", *(name for rule in chain for name in rule.measures)}
    assert (result.rows_in, result.rows_out, result.rejected) == (len(texts), len(texts), {})


def test_a_flipped_byte_is_not_read_as_text(tmp_path):
    path = tmp_path / "documents.parquet"
    write_documents(path, [f"{PROSE} {i * 7919 % 104729}" for i in range(200)])
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(2)
    first = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
    data[first + column.total_compressed_size // 2] ^= 0x10
    path.write_bytes(bytes(data))
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        filter_unit(unit(path), tmp_path)


def test_the_output_is_pinned_beside_its_version(tmp_path):
    # When this digest changes, so do verdicts: raise RULES_VERSION in filters/verdicts.py, or VERSION in text/words.py, and pin it anew.
    write_documents(tmp_path / "documents.parquet", TEXTS)
    filter_unit(unit(tmp_path / "documents.parquet", (*CHAIN, CodeQuality())), tmp_path)
    table = artifact.read_table(tmp_path / "verdicts" / "u00003.parquet")
    content = hashlib.sha256(repr(table.to_pydict()).encode()).hexdigest()
    assert (verdicts.VERSION, content[:16]) == (101, "3440f87662866055")
