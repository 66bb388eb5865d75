import logging

import pyarrow as pa
import pytest

from headrace.artifact import StageError, write_table
from headrace.ingest.budget import ErrorBudget, check_budget, file_accounts
from headrace.ingest.documents import FILES


def accounts(tmp_path, *rows):
    """A stage's folder and unit records, of one unit a row: (relative, records, errors, failed)."""
    records = []
    for number, (relative, count, errors, failed) in enumerate(rows):
        row = {"source": "web", "relative": relative, "records": count, "documents": count - errors, "errors": errors, "failed": failed}
        name = f"files/u{number:05d}.parquet"
        write_table(pa.Table.from_pylist([row], FILES), tmp_path / name)
        records.append({"id": f"u{number:05d}", "files": [{"path": "documents/none"}, {"path": name}]})
    return records


def test_pieces_of_a_file_are_added_up(tmp_path):
    accounts(tmp_path, ("b", 10, 1, False), ("a", 5, 0, False), ("b", 20, 2, True))
    found = file_accounts(sorted((tmp_path / "files").iterdir()))
    assert found == [
        {"source": "web", "relative": "a", "records": 5, "documents": 5, "errors": 0, "failed": False},
        {"source": "web", "relative": "b", "records": 30, "documents": 27, "errors": 3, "failed": True},
    ]
    assert file_accounts([]) == []


@pytest.mark.parametrize("records, errors", [(20, 10), (1000, 10), (5000, 50), (11, 10)])
def test_errors_within_the_budget_pass(tmp_path, records, errors):
    check_budget(accounts(tmp_path, ("a", records, errors, False)), ErrorBudget(), tmp_path)


@pytest.mark.parametrize("records, errors", [(20, 11), (1000, 11), (5000, 51)])
def test_errors_past_the_budget_name_the_file_the_counts_and_the_way_out(tmp_path, records, errors):
    rows = [("good", 100, 0, False), ("bad.jsonl", records, errors, False)]
    with pytest.raises(StageError) as error:
        check_budget(accounts(tmp_path, *rows), ErrorBudget(), tmp_path)
    message = str(error.value)
    assert f"web: bad.jsonl: {errors} of {records:,} records could not be read" in message
    assert "1.0% of a file's records, at least 10" in message
    assert "errors.records" in message
    check_budget(accounts(tmp_path, *rows), ErrorBudget(records=0.6), tmp_path)


def test_the_errors_of_a_file_s_pieces_count_together(tmp_path):
    with pytest.raises(StageError, match="12 of 200 records"):
        check_budget(accounts(tmp_path, ("a", 100, 6, False), ("a", 100, 6, False)), ErrorBudget(), tmp_path)


def test_failed_files_past_the_budget(tmp_path):
    rows = [(f"{number:02d}", 1, 0, number < 11) for number in range(40)]
    with pytest.raises(StageError, match=r"11 of 40 files could not be read to their end, the first web: 00; .* errors\.files"):
        check_budget(accounts(tmp_path, *rows), ErrorBudget(), tmp_path)
    check_budget(accounts(tmp_path, *rows), ErrorBudget(files=0.3), tmp_path)
    check_budget(accounts(tmp_path, *rows[1:]), ErrorBudget(), tmp_path)


def test_no_document_at_all_is_an_error_and_none_of_a_source_a_warning(tmp_path, caplog):
    with pytest.raises(StageError, match="no document in any of 2 files"):
        check_budget(accounts(tmp_path, ("a", 3, 3, False), ("b", 0, 0, True)), ErrorBudget(), tmp_path)
    records = accounts(tmp_path, ("a", 3, 3, False), ("b", 2, 0, False))
    row = {"source": "empty", "relative": "c", "records": 1, "documents": 0, "errors": 1, "failed": False}
    write_table(pa.Table.from_pylist([row], FILES), tmp_path / "files" / "u00000.parquet")
    with caplog.at_level(logging.WARNING, "headrace"):
        check_budget(records, ErrorBudget(), tmp_path)
    assert "ingest: empty: no document in any of its files" in caplog.text
