"""YAML with comments: the same values come back."""

from __future__ import annotations

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.cluster.yaml_text import write

TEXTS = st.one_of(
    st.text(max_size=30), st.text("ab -:#'\"\n", max_size=300), st.sampled_from(["", "on", "1", "~", "- a", "a: b", "x " * 100])
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS)
KEYS = st.one_of(st.text("abc.-/~ ", min_size=1, max_size=8), st.sampled_from(["on", "1", "#", "? "]))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(KEYS, inner, max_size=8), max_leaves=20)


@settings(max_examples=150, deadline=None)
@example({"a": ["\x85", "b\u2028c\n\u2029"]}, "")
@example("\x85", "")
@given(VALUES, st.sampled_from(["", "one line", "two\n\nlines"]))
def test_values_come_back(value, header):
    assert yaml.safe_load(write(value, header=header)) == value


def test_comments_stand_above_their_places_and_change_nothing():
    value = {"a": {"b": [1, {"c": "x", "d": [[1, 2], "y"]}], "e": {}}, "f": "word " * 60 + "end"}
    comments = {("a",): "of a", ("a", "b", 1, "c"): "of c", ("a", "b", 0): "of the first", ("f",): "two\nlines"}
    text = write(value, comments, "the top")
    assert yaml.safe_load(text) == value
    lines = [line.strip() for line in text.splitlines()]
    assert lines[:3] == ["# the top", "# of a", "a:"]
    assert lines[lines.index("# of c") + 1] == "- c: x"
    assert lines[lines.index("# of the first") + 1] == "- 1"
    assert lines[lines.index("# two") + 1 : lines.index("# two") + 3] == ["# lines", "f: >-"]
    assert max(map(len, lines)) <= 140
