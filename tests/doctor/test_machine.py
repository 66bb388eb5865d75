import os
import time

import pytest

from headrace.doctor import machine

GIB = 1 << 30


@pytest.mark.parametrize(("available", "level"), [(GIB, "error"), (3 * GIB, "warning"), (5 * GIB, "ok")])
def test_memory_against_what_data_workers_may_take(available, level):
    found = machine.memory(8 * GIB, available, 2)
    assert found.level == level and (level == "ok" or found.do)


def test_a_container_s_limit_counts_where_it_is_the_lower(tmp_path):
    total, available = machine.memory_limit(tmp_path)  # none there
    assert 0 < available <= total
    (tmp_path / "memory.max").write_text(f"{64 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{60 << 20}\n")
    assert machine.memory_limit(tmp_path) == (64 << 20, 4 << 20)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_limit(tmp_path)[0] == total


def test_shared_memory_against_ray_s_share(tmp_path):
    assert machine.shared_memory(1, tmp_path).level == "ok"
    small = machine.shared_memory(1 << 60, tmp_path)
    assert small.level == "warning" and "--shm-size=" in small.do
    assert machine.shared_memory(1, tmp_path / "absent").level == "warning"


def test_disk_is_that_of_the_nearest_folder_there_is(tmp_path):
    found = machine.disk("run", tmp_path / "not" / "yet")
    assert found.level in {"ok", "warning"} and str(tmp_path / "not" / "yet") in found.found


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    assert machine.disk("run", tmp_path / "run").level == "error"


@pytest.mark.parametrize(("limits", "level"), [((256, 4096), "error"), ((1024, 4096), "warning"), ((65536, 65536), "ok")])
def test_file_descriptors(limits, level):
    found = machine.descriptors(limits)
    assert found.level == level and (level == "ok" or "ulimit -n" in found.do)


def test_the_clock_cannot_be_older_than_the_installation():
    assert machine.clock().level == "ok"
    wrong = machine.clock(time.time() - 20 * 365 * 86400)
    assert wrong.level == "error" and "NTP" in wrong.do


def test_a_compiler_is_missed_only_where_it_is_wanted():
    assert [machine.compiler(*given).level for given in (("/usr/bin/g++", True), (None, False), (None, True))] == ["ok", "ok", "error"]
