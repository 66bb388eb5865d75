import pytest

from headrace.ingest.html import MAX_DEPTH, decode, depth, main_text

POLISH = "<html><head>{meta}</head><body><p>Zażółć gęślą jaźń, powiedział młynarz, i poszedł nad strumień po wodę.</p></body></html>"
UTF8 = POLISH.format(meta="<meta charset='utf-8'>")


@pytest.mark.parametrize(
    "content, declared",
    [
        (UTF8.encode(), None),
        (UTF8.encode(), "iso-8859-1"),  # a server's default against what the bytes say
        (("\ufeff" + UTF8).encode(), "utf-8"),
        (UTF8.encode("iso-8859-2"), "iso-8859-2"),
        (POLISH.format(meta="<meta charset='iso-8859-2'>").encode("iso-8859-2"), None),
        (POLISH.format(meta="<meta charset='iso-8859-2'>").encode("iso-8859-2"), "utf-8"),
        (UTF8.encode("utf-16"), None),
    ],
)
def test_pages_of_any_charset(content, declared):
    assert "Zażółć gęślą jaźń" in decode(content, declared)


def test_a_few_broken_bytes_leave_a_page_utf8():
    content = UTF8.encode().replace(b"po wod", b"po \xff wod")
    assert "gęślą jaźń" in decode(content, "iso-8859-2")
    assert "po \ufffd wodę" in decode(content, "iso-8859-2")


@pytest.mark.parametrize("declared", ["no-such-charset", "x-user-defined", ""])
def test_an_unknown_charset_is_guessed(declared):
    assert "gęślą" in decode(POLISH.format(meta="<meta charset='iso-8859-2'>").encode("iso-8859-2"), declared)


def test_depth_counts_what_is_open():
    assert depth(b"") == depth(b"no tags, 1 < 2") == 0
    assert depth(b"<html><body><div><p>x</p></div><DIV></DIV></body></html>") == 3
    assert depth(b"<div>" * 5000) == 5000
    assert depth((b"<div>" * 70 + b"</div>" * 70) * 50) == 70
    # Neither void elements nor those whose end tag may be left out nest.
    assert depth(b"<ul>" + b"<li>x<br><img src=a><p>y<td>z" * MAX_DEPTH + b"</ul>") == 1


def test_main_text_leaves_out_navigation_and_comments():
    story = "<p>The miller went down to the stream for the last time that day, and looked at the wheel for a while.</p>" * 5
    page = f"<html><body><nav><a href=/>Home</a></nav><article><h1>The wheel</h1>{story}</article><footer>All rights</footer></body></html>"
    text = main_text(page)
    assert text.startswith("The wheel\n\nThe miller went down")
    assert "Home" not in text
    assert "All rights" not in text
