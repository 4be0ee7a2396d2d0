"""The training loop with a toy recipe: stopping, continuing, several processes, schedules."""

import json
import subprocess
import sys

import pytest
import torch

from tests.utils.training import toy_training
from utils.base.errors import UserError
from utils.training.recipes import evaluates, plan_epoch, steps_per_epoch


def run_toy(folder, *arguments, processes=1):
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone"]
        launch += ["--nproc_per_node", str(processes)]
    return subprocess.run(
        [*launch, toy_training.__file__, "--folder", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def weights(folder):
    return torch.load(folder / "state.pt", weights_only=True)["model"]["weight"]


def test_plan_is_a_function_of_seed_and_epoch():
    first, again = plan_epoch(1, 2, 100, 3), plan_epoch(1, 2, 100, 3)
    assert (first.order == again.order).all() and (first.draws == again.draws).all()
    assert sorted(first.order) == list(range(100))
    assert first.draws.shape == (100, 3)
    assert (plan_epoch(1, 3, 100, 3).order != first.order).any()
    assert (plan_epoch(2, 2, 100, 3).order != first.order).any()


@pytest.mark.parametrize(
    ("rows", "processes", "steps"), [(8, 1, 1), (9, 1, 2), (9, 2, 1), (10, 2, 2), (3, 1, 1)]
)
def test_steps_per_epoch(rows, processes, steps):
    assert steps_per_epoch(rows, 8, processes) == steps


def test_too_few_rows_for_the_processes():
    with pytest.raises(UserError, match="1 training queries are too few for 2 processes"):
        steps_per_epoch(1, 8, 2)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, [1, 2]),
        (2, [1, 2, 3, 4]),
        (3, [1, 3, 4, 6]),
        (4, [2, 4, 6, 8]),
        (5, [2, 5, 7, 10]),
        (433, [216, 433, 649, 866]),
    ],
)
def test_evaluated_twice_an_epoch_the_second_time_at_its_end(steps, expected):
    total = 2 * steps
    seen = [step for step in range(1, total + 1) if evaluates(step, steps, total, 2, 0)]
    assert seen == expected


def test_eval_period_replaces_it():
    assert [step for step in range(1, 9) if evaluates(step, 4, 8, 2, period=3)] == [3, 6, 8]


def test_two_processes_make_the_same_steps_as_one(tmp_path):
    assert run_toy(tmp_path / "one").returncode == 0
    two = run_toy(tmp_path / "two", processes=2)
    assert two.returncode == 0, two.stderr
    torch.testing.assert_close(
        weights(tmp_path / "two"), weights(tmp_path / "one"), rtol=1e-4, atol=1e-6
    )


def test_changed_options_are_refused_by_name_and_restart_begins_anew(tmp_path):
    assert run_toy(tmp_path / "run").returncode == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    changed = run_toy(tmp_path / "run", "--rate", "0.2")
    assert changed.returncode == 2
    assert {file: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before
    assert "--rate was 0.1, is now 0.2" in changed.stderr
    assert changed.stderr.count("\n") == 1
    anew = run_toy(tmp_path / "run", "--rate", "0.2", "--restart")
    assert anew.returncode == 0, anew.stderr
    assert json.loads((tmp_path / "run" / "options.json").read_text())["rate"] == 0.2


def test_finished_run_is_not_trained_again(tmp_path):
    assert run_toy(tmp_path / "run").returncode == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert run_toy(tmp_path / "run").returncode == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_last_three_checkpoints_are_kept(tmp_path):
    assert run_toy(tmp_path / "run").returncode == 0
    kept = sorted(file.name for file in (tmp_path / "run").glob("*.t7"))
    assert kept == ["toy_16.t7", "toy_20.t7", "toy_24.t7"]


def test_loss_that_is_not_finite_stops_the_run(tmp_path):
    wrong = run_toy(tmp_path / "run", "--rate", "1e30")
    assert wrong.returncode == 2
    assert "training went wrong at step" in wrong.stderr
    assert "Traceback" not in wrong.stderr
