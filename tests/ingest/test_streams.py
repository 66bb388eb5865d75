import gzip
import os
import random
import zlib

import pyarrow as pa
import pytest
import zstandard

from headrace.ingest.streams import StreamError, chunks, compression, kind_of, lines, next_member

TEXT = b"".join(b"%d %s\n" % (number, os.urandom(20).hex().encode()) for number in range(20_000))


def taken(path, **options):
    """What a file yields, and the reason for which it stopped."""
    got = b""
    try:
        for piece in chunks(str(path), **options):
            got += piece
    except StreamError as error:
        return got, error.reason
    return got, None


def lz4(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


PACK = {".gz": gzip.compress, ".zst": zstandard.compress, ".lz4": lz4}


@pytest.mark.parametrize("suffix", PACK)
def test_every_member_of_a_compressed_file_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(PACK[suffix](TEXT[:300_000]) + PACK[suffix](TEXT[300_000:]))
    assert taken(path) == (TEXT, None)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_a_truncated_file_gives_what_came_before(tmp_path, suffix, cut):
    path = tmp_path / f"a{suffix}"
    packed = PACK[suffix](TEXT)
    path.write_bytes(packed[:-cut])
    got, reason = taken(path)
    assert reason == "truncated_stream"
    assert TEXT.startswith(got)
    assert len(got) > len(TEXT) - 200_000  # zstd blocks are 128 KiB


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_cut_within_its_header_is_truncated(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(PACK[suffix](TEXT)[:6])
    assert taken(path) == (b"", "truncated_stream")


def test_a_wrong_checksum_is_corruption(tmp_path):
    path = tmp_path / "a.gz"
    packed = bytearray(gzip.compress(TEXT))
    packed[-6] ^= 1
    path.write_bytes(packed)
    got, reason = taken(path)
    assert reason == "corrupt_stream"
    assert TEXT.startswith(got)
    assert len(got) > len(TEXT) // 2
    assert taken(path, whole_members=True) == (b"", "corrupt_stream")


def test_a_flipped_bit_in_zstd_is_corruption(tmp_path):
    path = tmp_path / "a.zst"
    packed = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(TEXT))
    packed[len(packed) // 2] ^= 1
    path.write_bytes(packed)
    assert taken(path)[1] == "corrupt_stream"


def test_zero_padding_behind_gzip_is_allowed_and_garbage_is_not(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(TEXT) + bytes(512))
    assert taken(path) == (TEXT, None)
    path.write_bytes(gzip.compress(TEXT) + b"garbage")
    assert taken(path) == (TEXT, "corrupt_stream")


@pytest.mark.parametrize("suffix", PACK)
def test_a_bomb_stops_at_the_ratio(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    packed = PACK[suffix](bytes(128 << 20))
    path.write_bytes(packed)
    got, reason = taken(path)
    assert reason == "bomb"
    assert len(got) <= 200 * max(len(packed), 64 << 10)


def test_a_bomb_in_many_members_stops_too(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)) * 100)
    assert taken(path)[1] == "bomb"


def test_a_zstd_window_beyond_128_mib_is_refused(tmp_path):
    path = tmp_path / "a.zst"
    parameters = zstandard.ZstdCompressionParameters(window_log=30)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(stream.compress(TEXT) + stream.flush())
    assert taken(path) == (b"", "corrupt_stream")


@pytest.mark.parametrize(
    "name, content",
    [("a.gz", b'{"text": "plain"}'), ("a.jsonl", gzip.compress(b"x")), ("a.zst", gzip.compress(b"x")), ("a.txt", b"%PDF-1.7 ...")],
)
def test_content_of_another_format_than_the_name_says(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert taken(tmp_path / name) == (b"", "not_the_format")


def test_an_absent_file_is_unreadable(tmp_path):
    assert taken(tmp_path / "a.jsonl") == (b"", "unreadable")


def test_compression_is_told_by_the_name_and_formats_by_the_first_bytes():
    assert [compression(name) for name in ("a.jsonl", "a.jsonl.GZ", "a.zst", "a.lz4")] == [None, "gzip", "zstd", "lz4"]
    assert kind_of(b"\x50\x2a\x4d\x18\x04\0\0\0") == "zstd"  # a skippable frame
    assert kind_of(b"Parks and PAR1") is None


def test_the_next_member_is_the_next_that_begins_a_record(tmp_path):
    first, other, record = gzip.compress(b"WARC/1.0 first"), gzip.compress(b"no record"), gzip.compress(b"WARC/1.0 second")
    path = tmp_path / "a.gz"
    path.write_bytes(first + other + b"\x1f\x8b\x08 no member" + record)
    assert next_member(str(path), 0, b"WARC/") == len(first + other) + len(b"\x1f\x8b\x08 no member")
    assert next_member(str(path), path.stat().st_size - len(record), b"WARC/") is None


def test_lines_end_at_newlines_alone_however_the_bytes_arrive():
    content = "a\u2028b\x0bc\x85d\r\n\n\nlast without an end".encode()
    first = content.index(b"\n")
    expected = [(0, content[:first]), (first + 1, b""), (first + 2, b""), (first + 3, b"last without an end")]
    for seed in range(50):
        cuts = sorted(random.Random(seed).choices(range(len(content)), k=6))
        pieces = [content[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(content)], strict=True)]
        assert [(line.offset, line.content) for line in lines(iter(pieces), 1000)] == expected


def test_an_overlong_line_is_passed_over_and_its_neighbours_are_read():
    content = b"short\n" + b"x" * 5000 + b"\nafter\n" + b"y" * 101 + b"\n" + b"z" * 300
    for step in (1, 7, 100, 5000, len(content)):
        pieces = (content[start : start + step] for start in range(0, len(content), step))
        found = [(line.offset, line.content, line.first_bytes[:3]) for line in lines(pieces, 100)]
        assert found == [
            (0, b"short", b"sho"),
            (6, None, b"xxx"),
            (5007, b"after", b"aft"),
            (5013, None, b"yyy"),
            (5115, None, b"zzz"),
        ]


def test_output_that_zlib_holds_back_at_the_end_of_input_is_not_lost(tmp_path):
    # 60 KiB of packed input are read in one go and expand to several steps of output.
    content = (b"0123456789abcdef" * 4 + b"\n") * 160_000
    packed = zlib.compressobj(1, zlib.DEFLATED, 31)
    (tmp_path / "a.gz").write_bytes(packed.compress(content) + packed.flush())
    assert taken(tmp_path / "a.gz") == (content, None)
