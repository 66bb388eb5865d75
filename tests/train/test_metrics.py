import json
from pathlib import Path

import torch

from headrace.train.metrics import drop_after, peak_flops


def test_a_resume_drops_the_lines_of_the_steps_to_come_and_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 0.1 + step}) + "\n" for step in range(1, 8)) + '{"step": 8, "lo')
    drop_after(path, 5)
    kept = path.read_text()
    assert [json.loads(line)["step"] for line in kept.splitlines()] == [1, 2, 3, 4, 5]
    assert json.loads(kept.splitlines()[2])["loss"] == 3.1
    drop_after(tmp_path / "absent.jsonl", 5)
    assert not (tmp_path / "absent.jsonl").exists()


def test_no_peak_is_claimed_for_a_cpu() -> None:
    assert peak_flops(torch.device("cpu"), "bf16") is None
