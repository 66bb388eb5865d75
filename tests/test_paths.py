from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.paths import below, leading_out, leads_out

PART = st.sampled_from(["..", ".", "", "a", "..a", "a..", "~", "C:", "\\", "..\\", "\0", "%2e%2e", "..", " "]) | st.text(max_size=4)
PATHS = st.lists(PART, min_size=1, max_size=5).map("/".join) | st.text(max_size=12)


@given(PATHS)
def test_what_is_let_through_stays_below(name):
    root = Path("/srv/of/it")
    try:
        path = below(root, name)
    except ValueError:
        return
    assert path != root and path.resolve().is_relative_to(root) and ".." not in path.parts and "\\" not in name


@pytest.mark.parametrize("name", ["documents/u00000.parquet", "a", "..a/b..", "ids/step-1.bin", "w\u00e9 b"])
def test_plain_names_are_let_through(name):
    assert below(Path("/srv"), name) == Path("/srv") / name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/../b", "a/../../b", "/a", "//a", "a//b", "./a", "a/", "a\\..\\b", "a\0", None, 3, ["a"]]
)
def test_what_is_no_path_below_is_refused(name):
    with pytest.raises(ValueError, match="no path below its folder"):
        below(Path("/srv"), name)


def test_links_that_lead_out_are_told_from_those_that_do_not(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "file").touch()
    (root / "inside").symlink_to("file")
    (root / "out").symlink_to(outside / "file")
    (root / "folder").symlink_to(outside)
    (tmp_path / "elsewhere").symlink_to(root)
    assert not leads_out(root, root / "file") and not leads_out(root, root / "inside")
    assert leads_out(root, root / "out") and leads_out(root, root / "folder" / "file")
    assert not leads_out(tmp_path / "elsewhere", tmp_path / "elsewhere" / "file")  # the root itself may be moved to another disk
    names = ["file", "inside", "out", "folder/file"]
    for whole in (root, tmp_path / "elsewhere"):
        assert list(leading_out(whole, names)) == [whole / "out", whole / "folder" / "file"]
