from __future__ import annotations

import itertools
import types

from headrace import terminal
from headrace.terminal import print_table, tracked


def test_progress_is_told_on_stderr_and_all_items_come_through(capsys, monkeypatch):
    clock = itertools.count(0, 6)  # seconds from one look at it to the next
    monkeypatch.setattr(terminal, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    assert list(tracked("abcd", "materialize", "units")) == list("abcd")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.split("\n") == ["materialize: 1 of 4 units", "materialize: 3 of 4 units", ""]


def test_a_table_holds_every_row(capsys):
    print_table(("name", "value"), [("bits_per_byte", "1.25"), ("accuracy", "0.5")])
    shown = capsys.readouterr().out
    assert [word for word in ("name", "value", "bits_per_byte", "1.25", "accuracy", "0.5") if word not in shown] == []
