"""The training loop with a toy recipe: plans, schedules, options that differ."""

import json

import pytest
import torch

from tests.utils.training.lives import contents
from tests.utils.training.toy_training import run as train
from utils.base.errors import UserError
from utils.training.processes import LostPeer, Processes
from utils.training.recipes import evaluates, plan_epoch, steps_per_epoch


def test_plan_is_a_function_of_seed_and_epoch():
    first, again = plan_epoch(1, 2, 100, 3), plan_epoch(1, 2, 100, 3)
    assert (first.order == again.order).all() and (first.draws == again.draws).all()
    assert sorted(first.order) == list(range(100)) and first.draws.shape == (100, 3)
    for other in (plan_epoch(1, 3, 100, 3), plan_epoch(2, 2, 100, 3)):
        assert (other.order != first.order).any() and (other.draws != first.draws).all()


@pytest.mark.parametrize(
    ("rows", "processes", "steps"), [(8, 1, 1), (9, 1, 2), (9, 2, 1), (10, 2, 2), (3, 1, 1)]
)
def test_every_process_has_a_query_in_every_step_of_an_epoch(rows, processes, steps):
    assert steps_per_epoch(rows, 8, processes) == steps
    with pytest.raises(UserError, match="1 training queries are too few for 2 processes"):
        steps_per_epoch(1, 8, 2)


@pytest.mark.parametrize(
    ("steps", "period", "expected"),
    [
        (1, 0, [1, 2]),
        (2, 0, [1, 2, 3, 4]),
        (3, 0, [1, 3, 4, 6]),
        (5, 0, [2, 5, 7, 10]),
        (433, 0, [216, 433, 649, 866]),
        (4, 3, [3, 6, 8]),  # --eval_period
    ],
)
def test_evaluated_twice_an_epoch_the_second_time_at_its_end(steps, period, expected):
    total = 2 * steps
    seen = [step for step in range(1, total + 1) if evaluates(step, steps, total, 2, period)]
    assert seen == expected


def test_a_finished_run_is_not_trained_again_nor_with_other_options(tmp_path):
    train(tmp_path)
    kept = sorted(file.name for file in tmp_path.glob("*.t7"))
    assert kept == ["toy_16.t7", "toy_20.t7", "toy_24.t7"]  # the last three
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"other options \(--rate was 0\.1, is now 0\.2\)"):
        train(tmp_path, rate=0.2)
    assert contents(tmp_path) == before
    train(tmp_path)
    assert contents(tmp_path)["metrics.jsonl"] == before["metrics.jsonl"]
    train(tmp_path, rate=0.2, restart=True)
    assert json.loads((tmp_path / "options.json").read_text())["rate"] == 0.2
    assert contents(tmp_path)["toy_24.t7"] != before["toy_24.t7"]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="training failed at step"):
        train(tmp_path, rate=1e30)


def test_a_step_that_waits_for_a_lost_process_is_not_saved(tmp_path, monkeypatch):
    largest, calls = Processes.largest, []

    def lose(self, *values):
        calls.append(values)
        if len(calls) == 5:
            raise RuntimeError("gloo: Connection closed by peer")
        return largest(self, *values)

    monkeypatch.setattr(Processes, "largest", lose)
    monkeypatch.setattr(Processes, "device_finishes", lambda self: False)
    with pytest.raises(LostPeer, match=f"{tmp_path} is as it was saved last"):
        train(tmp_path)
    last = torch.load(tmp_path / "state.pt")["step"]
    monkeypatch.undo()
    assert last < 5
    train(tmp_path)
    assert torch.load(tmp_path / "state.pt")["step"] == 24
