import gzip

from headrace.ingest import read_text as module
from headrace.ingest.read_text import read_lines, read_text
from headrace.ingest.record import Record, Rejected


def of(tmp_path, content, name="a.txt"):
    (tmp_path / name).write_bytes(content)
    return list(read_text(str(tmp_path / name)))


def test_a_file_is_a_document_with_its_line_ends(tmp_path):
    assert of(tmp_path, "\ufeffone\r\ntwo\n".encode()) == [Record(None, 0, "one\r\ntwo\n")]
    assert of(tmp_path, gzip.compress(b"packed"), "a.txt.gz") == [Record(None, 0, "packed")]


def test_what_is_no_text_is_rejected_with_its_reason(tmp_path):
    assert of(tmp_path, b"caf\xe9") == [Rejected(0, "bad_utf8", b"caf\xe9")]
    assert of(tmp_path, b"a\0b") == [Rejected(0, "nul_bytes", b"a\0b")]
    assert of(tmp_path, b" \n") == [Rejected(0, "empty_text", b" \n")]
    assert of(tmp_path, b"") == [Rejected(0, "empty_text", b"")]
    assert [item.reason for item in of(tmp_path, b"\x89PNG\r\n\x1a\n\0\0")] == ["not_the_format"]


def test_half_a_text_is_no_document(tmp_path):
    (item,) = of(tmp_path, gzip.compress(b"whole sentences " * 1000)[:-3], "a.txt.gz")
    assert (item.reason, item.whole_file) == ("truncated_stream", True)


def test_a_text_longer_than_a_record_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_RECORD", 100)
    assert len(of(tmp_path, b"x" * 100)) == 1
    assert [item.reason for item in of(tmp_path, b"x" * 101)] == ["too_long"]


def test_each_line_is_a_document(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n \nt\xe9o\nthree")
    assert list(read_lines(str(tmp_path / "a.txt"))) == [
        Record(None, 0, "one"),
        Rejected(11, "bad_utf8", b"t\xe9o"),
        Record(None, 15, "three"),
    ]
    assert list(read_lines(str(tmp_path / "a.txt"), 11, 15)) == [Rejected(11, "bad_utf8", b"t\xe9o")]
