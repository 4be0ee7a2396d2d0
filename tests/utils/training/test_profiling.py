"""A trace of training steps."""

import torch

from utils.training.profiling import SKIPPED_STEPS, profiled


def test_the_steps_asked_for_are_traced(tmp_path, capsys):
    with profiled(2, tmp_path / "profile") as look:
        for _ in range(SKIPPED_STEPS + 4):
            torch.ones(10, 10) @ torch.ones(10, 10)
            look()
    (trace,) = tmp_path.glob("profile/*.json")
    text = trace.read_text()
    assert "ProfilerStep#3" in text and "ProfilerStep#4" in text
    assert "ProfilerStep#5" not in text
    assert "aten::mm" in capsys.readouterr().out
