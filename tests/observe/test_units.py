from __future__ import annotations

import pytest

from headrace.events import event_log, mistakes
from headrace.observe.units import UnitMetrics, UnitProgress, events_of
from headrace.stage import Pass, UnitResult, heard_by, run_units
from headrace.storage import read_lines


def account(rows_in, rows_out, source="mill", **counters):
    rejected = {"too_short": rows_in - rows_out} if rows_in > rows_out else {}
    return {"id": "u", "source": source, "rows_in": rows_in, "rows_out": rows_out, "rejected": rejected, "counters": counters}


def passes(stage, phase, total, accounts, already=0):
    yield Pass(stage, phase, already, total, None)
    for done, each in enumerate(accounts, already + 1):
        yield Pass(stage, phase, done, total, each)


def test_progress_tells_rates_of_this_driver_and_the_time_that_is_left():
    now, told = [0.0], []
    progress = UnitProgress(lambda stage, what: told.append((stage, what)), clock=lambda: now[0])
    for each in passes("ingest", "read", 40, [account(100, 90, text_bytes=2_000_000)] * 10, already=20):
        progress(each)
        now[0] += 1.0
    # the first unit was done 1 s after the begin; one is told of every 2 s
    assert [what["done"] for _, what in told] == [22, 24, 26, 28, 30]
    stage, last = told[-1]
    assert (stage, last["phase"], last["total"], last["unit"]) == ("ingest", "read", 40, "units")
    assert last["documents_per_s"] == 100.0 and last["bytes_per_s"] == 2_000_000
    assert last["left_s"] == 10.0  # 10 units in 10 s, 10 to go


def test_the_longer_a_pass_the_seldomer_it_is_told_of_but_its_end_is():
    now, told = [0.0], []
    progress = UnitProgress(lambda stage, what: told.append(now[0]), clock=lambda: now[0])
    for each in passes("filters", "verdicts", 5001, [account(1, 1)] * 5001):
        progress(each)
        now[0] += 1.0
    assert len(told) < 600 and told[-1] == 5001.0
    assert {later - earlier for earlier, later in zip(told[-10:-2], told[-9:-1])} == {10.0}


def test_short_passes_are_not_told_of():
    now, told = [0.0], []
    progress = UnitProgress(lambda stage, what: told.append(what), clock=lambda: now[0])
    for each in passes("dedup", "bands", 3, [account(1, 1)] * 3):
        progress(each)
        now[0] += 0.1
    assert told == []


class Counted:
    """What a meter was told, added up."""

    def __init__(self):
        self.counted, self.levels = {}, {}

    def count(self, name, more, **labels):
        key = (name, *labels.values())
        self.counted[key] = self.counted.get(key, 0) + more

    def set(self, name, value, **labels):
        self.levels[name, *labels.values()] = value


def test_documents_are_counted_once_whatever_passes_a_stage_makes():
    meter = Counted()
    listen = UnitMetrics(meter)
    for phase in ("signatures", "document", "verdicts"):
        for each in passes("dedup", phase, 2, [account(100, 90), account(50, 50, source="book")]):
            listen(each)
    assert meter.counted == {
        ("documents_in", "dedup", "mill"): 100,
        ("documents_out", "dedup", "mill"): 90,
        ("documents_dropped", "dedup", "mill", "too_short"): 10,
        ("documents_in", "dedup", "book"): 50,
        ("documents_out", "dedup", "book"): 50,
        ("text_bytes", "dedup", "mill"): 0,
        ("text_bytes", "dedup", "book"): 0,
    }
    assert meter.levels["units_done", "dedup", "document"] == meter.levels["units_planned", "dedup", "document"] == 2


def halve(unit, folder):
    return UnitResult(10, 5, {"odd": 5}, {"text_bytes": 1000})


def broken(unit, folder):
    raise ValueError("no such unit")


def test_run_units_tells_its_listeners_and_none_after(tmp_path):
    heard = []
    units = [{"id": f"u{number}", "source": "mill"} for number in range(3)]
    with heard_by(heard.append):
        run_units(halve, units[:1], tmp_path / "filters" / "aaaa", phase="verdicts", engine="local")
        run_units(halve, units, tmp_path / "filters" / "aaaa", phase="verdicts", engine="local")
        run_units(halve, units, tmp_path / "filters" / "aaaa", phase="verdicts", engine="local")  # nothing is left to do
    run_units(halve, units, tmp_path / "filters" / "bbbb", phase="verdicts", engine="local")
    assert [(each.done, each.total, each.account and each.account["id"]) for each in heard] == [
        *[(0, 1, None), (1, 1, "u0")],
        *[(1, 3, None), (2, 3, "u1"), (3, 3, "u2")],
    ]
    assert heard[-1].stage == "filters" and heard[-1].account["rejected"] == {"odd": 5}
    with pytest.raises(ValueError), heard_by(heard.append):
        run_units(broken, units, tmp_path / "filters" / "cccc", phase="verdicts", engine="local")


def test_the_events_are_of_the_schema(tmp_path):
    now = [0.0]
    listen = events_of(event_log(tmp_path))
    listen._clock = lambda: now[0]
    for each in passes("tokens", "tokens", 4, [account(7, 7, train_bytes=600, validation_bytes=300)] * 4):
        listen(each)
        now[0] += 3.0
    events = read_lines(tmp_path / "events.jsonl")
    assert [mistakes(event) for event in events] == [[]] * 4
    assert events[-1]["bytes_per_s"] == 300
