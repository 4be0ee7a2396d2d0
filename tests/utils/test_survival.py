"""Runs survive signals, torn files, full disks and numbers that go wrong (docs/survival.md)."""

import errno
import itertools
import os
import random
import signal

import pytest
import torch
from torch import nn

from tests.simulated import refuse, succeed
from tests.utils import toy_training
from tests.utils.lives import Counter, differences, file_operations
from utils.base.errors import UserError
from utils.base.tensor_files import load_last_whole, save_atomically
from utils.training.guard import Guard


def train(folder, **options):
    toy_training.train(toy_training.Options(folder=str(folder), **options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder)
    return folder


def check_continues(whole, folder):
    train(folder)
    assert differences(whole, folder) == []


def test_out_of_memory_leaves_the_state(whole, tmp_path):
    line = refuse("tests/utils/toy_training.py", "--folder", tmp_path, "--hoard_at", "5")
    assert "the machine is out of memory" in line and "what was saved is intact" in line
    assert load_last_whole(tmp_path / "state.pt")["step"] == 5
    check_continues(whole, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signal_saves_and_leaves(whole, tmp_path, capsys, number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end:
        train(tmp_path, kill_at=5, signal=int(number))
    assert end.value.code == 128 + number
    lines = [line for line in capsys.readouterr().err.splitlines() if "stopped by" in line]
    (line,) = lines
    assert line == (
        f"stopped by {number.name} after step 6 of 24, state saved in {tmp_path}: "
        "the same command continues"
    )
    assert load_last_whole(tmp_path / "state.pt")["step"] == 6
    assert signal.getsignal(number) is before
    check_continues(whole, tmp_path)


def test_signal_in_an_evaluation_leaves_at_once_and_it_is_made_up_for(whole, tmp_path, monkeypatch):
    def evaluate(self, epoch, step):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("went on evaluating")

    with monkeypatch.context() as patch:
        patch.setattr(toy_training.Recipe, "evaluate", evaluate)
        with pytest.raises(SystemExit) as end:
            train(tmp_path)
    assert end.value.code == 143
    state = load_last_whole(tmp_path / "state.pt")
    assert state["step"] == 4 and state["to_evaluate"]
    check_continues(whole, tmp_path)


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty", "gone"])
def test_torn_state_is_replaced_by_the_one_before(whole, tmp_path, capsys, fault):
    with pytest.raises(SystemExit):
        train(tmp_path, kill_at=10, signal=int(signal.SIGTERM))
    state = tmp_path / "state.pt"
    content = bytearray(state.read_bytes())
    if fault == "cut":
        state.write_bytes(content[: len(content) // 2])
    elif fault == "flipped":
        place = content.find(torch.load(state)["model"]["weight"].numpy().tobytes())
        content[place] ^= 1
        state.write_bytes(content)
    elif fault == "empty":
        state.write_bytes(b"")
    else:
        state.unlink()
    check_continues(whole, tmp_path)
    warned = "state.pt: damaged or cut off" in capsys.readouterr().err
    assert warned == (fault != "gone")


def test_nothing_whole_left(tmp_path):
    for value in (1, 2):
        save_atomically({"x": torch.tensor(value)}, tmp_path / "state.pt", keep_previous=True)
    assert load_last_whole(tmp_path / "state.pt")["x"] == 2
    for file in tmp_path.iterdir():
        file.write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"state\.pt: damaged.*state\.previous\.pt: damaged"):
        load_last_whole(tmp_path / "state.pt")
    assert load_last_whole(tmp_path / "other.pt") is None


def test_what_a_killed_process_left_is_removed(whole, tmp_path):
    with pytest.raises(SystemExit):
        train(tmp_path, kill_at=10, signal=int(signal.SIGTERM))
    (tmp_path / ".state.pt.abc.tmp").write_bytes(b"half")
    with (tmp_path / "eval_results.txt").open("a") as file:
        file.write("logged, but not saved")
    check_continues(whole, tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")],
)
def test_disk_that_takes_no_more(whole, tmp_path, number, words):
    """At any operation on files: clear words, and the last state is whole."""
    count = Counter(lambda: None, 0)
    with file_operations(count):
        train(tmp_path / "counted")
    draw, gone_on = random.Random(number), 0
    for at in (1, 2, *draw.sample(range(3, count.count), 12), count.count):

        def fail():
            raise OSError(number, os.strerror(number))

        folder = tmp_path / str(at)
        with file_operations(Counter(fail, at)):
            try:
                train(folder)
                gone_on += 1  # nothing that matters failed
            except UserError as error:
                assert words in str(error) and str(folder) in str(error)
        check_continues(whole, folder)
    assert gone_on <= 2


class TestWrongNumbers:
    def test_the_step_the_clip_and_the_parameters_are_named(self, tmp_path):
        with pytest.raises(UserError) as error:
            train(tmp_path, spoil=7)
        state = load_last_whole(tmp_path / "state.pt")
        said = str(error.value)
        assert f"went wrong at step {state['step']}, learning rate 0.1: total nan" in said
        assert "by themselves: clip7;" in said
        assert "gradients not finite: weight, bias;" in said
        assert "--skip_nonfinite" in said
        assert all(value.isfinite().all() for value in state["model"].values())

    def test_steps_are_tolerated(self, tmp_path, capsys):
        train(tmp_path / "three", spoil=7, skip_nonfinite=3)  # of three epochs
        assert "3 of 3 tolerated steps" in capsys.readouterr().err
        state = load_last_whole(tmp_path / "three" / "state.pt")
        assert state["step"] == 24 and state["skipped"] == 3
        assert all(value.isfinite().all() for value in state["model"].values())
        with pytest.raises(UserError, match="went wrong at step"):
            train(tmp_path / "two", spoil=7, skip_nonfinite=2)
        train(tmp_path / "two", spoil=7, skip_nonfinite=3)
        assert differences(tmp_path / "three", tmp_path / "two") == []

    def test_weights_that_are_not_finite_are_not_saved(self, tmp_path, monkeypatch):
        def build(self, *arguments):
            built(self, *arguments)

            def spoil(optimizer, *_):
                if optimizer.state[self.model.bias]["step"] == 4:
                    self.model.bias.data[0] = torch.inf

            self.optimizer.register_step_post_hook(spoil)

        built = toy_training.Recipe.__init__
        monkeypatch.setattr(toy_training.Recipe, "__init__", build)
        with pytest.raises(UserError, match="weights are not finite after step 4"):
            train(tmp_path)
        assert load_last_whole(tmp_path / "state.pt")["step"] == 3
        assert not list(tmp_path.glob("*.t7"))


def guarded(losses, fused=True, scaled=False, tolerated=0):
    """Steps with these losses; weights before and after each, and the guard."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    guard = Guard(torch.device("cpu"), tolerated, scaler)
    weights = [model.weight.detach().clone()]
    for step, factor in enumerate(losses):
        loss = model(torch.ones(1, 2)).sum() * factor
        guard.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        guard.step(optimizer, loss, norm, step, lambda value: None)
        optimizer.zero_grad()
        weights.append(model.weight.detach().clone())
    changed = [not torch.equal(*pair) for pair in itertools.pairwise(weights)]
    return changed, guard, optimizer


@pytest.mark.parametrize("fused", [True, False])
def test_guard_lets_no_wrong_step_through_and_none_after_one_too_many(fused):
    nan = float("nan")
    changed, guard, _ = guarded([1, nan, 1, nan, 1], fused, tolerated=1)
    assert changed == [True, False, True, False, False]
    assert guard.first_wrong(4) == 3
    changed, guard, optimizer = guarded([1, float("inf"), 1], fused, tolerated=1)
    assert changed == [True, False, True]
    assert guard.first_wrong(2) is None and guard.skipped == 1
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}


def test_fp16_steps_that_the_scaler_skips_are_normal_but_a_wrong_loss_is_not():
    changed, guard, _ = guarded([1, 1e36, 1], scaled=True)  # times 65536: infinite
    assert changed == [True, False, True]
    assert guard.first_wrong(2) is None
    changed, guard, _ = guarded([1, float("nan"), 1], scaled=True)
    assert changed == [True, False, False]
    assert guard.first_wrong(2) == 1


@pytest.mark.slow
def test_killed_anywhere_both_models_end_with_the_same_bits(simulated):
    said = succeed("tests/soak.py", "--kills", "10", "--data_root", simulated)
    assert said.count("VSLNet") == said.count("ReLER") == 2, said
