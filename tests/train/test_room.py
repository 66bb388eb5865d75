from __future__ import annotations

import psutil
import pytest
import torch

from headrace.train import room
from headrace.train.room import Room, room_of_machine, room_of_worker

HOST = psutil.virtual_memory().total


@pytest.fixture(autouse=True)
def ask_again() -> None:
    room.gpus.cache_clear()


def test_without_a_gpu_the_host_s_memory_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert room_of_machine(4) == Room(HOST // 4, 4, False)


def test_each_worker_has_a_gpu_or_none_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "gpus", lambda: (2, 80 << 30))
    assert room_of_machine(2) == Room(80 << 30, 2, True)
    assert room_of_machine(1) == Room(80 << 30, 2, True)
    assert room_of_machine(4) == Room(HOST // 4, 4, False), "Ray Train starts it on the CPU"


def test_a_worker_knows_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert room_of_worker(torch.device("cpu")) == Room(HOST // 8, 8, False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert room_of_worker(torch.device("cpu")) == Room(HOST // 2, 2, False)
