import pytest
import torch

from headrace.doctor import accelerators


def test_gpus_are_named_or_said_to_be_absent():
    found = accelerators.gpus()
    if torch.cuda.is_available():
        assert torch.cuda.get_device_name(0) in found.found and "driver" in found.found and "NCCL" in found.found
    else:
        assert found.level == "error" if accelerators.DEVICE.exists() else found.found.startswith("none")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_gpus_add_up_a_tensor():
    found = accelerators.all_reduce("nccl", min(2, torch.cuda.device_count()))
    assert found.level == "ok", found


def test_a_rank_that_fails_gives_its_reason_and_the_way_out(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuchinterface")
    found = accelerators.all_reduce("gloo", 2)
    assert found.level == "error" and "nosuchinterface" in found.found and "GLOO_SOCKET_IFNAME" in found.do
