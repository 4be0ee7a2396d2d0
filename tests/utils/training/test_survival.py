"""Runs survive signals, torn files, full disks and numbers that go wrong (docs/survival.md)."""

import contextlib
import errno
import itertools
import os
import shutil
import signal
import subprocess
import time

import pytest
import torch

from tests.killing import at, file_operations
from tests.simulated import refuse, succeed
from tests.utils.training import toy_training
from tests.utils.training.lives import differences, file_size_limit, same
from tests.utils.training.toy_training import run as train
from utils.base.errors import UserError
from utils.base.leftovers import temporary_prefix
from utils.base.tensor_files import load_newest, save_atomically
from utils.training import writers
from utils.training.guard import FirstNonFinite
from utils.training.recipes import plan_epoch


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder)
    return folder


def stop(folder, step, number=signal.SIGTERM):
    """Train so many steps and a last one; leave at a signal."""
    with pytest.raises(SystemExit) as end:
        train(folder, kill_at=step, signal=int(number))
    assert end.value.code == 128 + number
    assert load_newest(folder / "state.pt")[0]["step"] == step + 1


def check_continues(whole, folder):
    train(folder)
    assert differences(whole, folder) == []


def test_out_of_memory_leaves_the_state(whole, tmp_path):
    line = refuse("tests/utils/training/toy_training.py", "--folder", tmp_path, "--hoard_at", "5")
    assert "the machine is out of memory" in line and "what was saved is intact" in line
    assert load_newest(tmp_path / "state.pt")[0]["step"] == 5
    check_continues(whole, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signal_saves_and_leaves(whole, tmp_path, capsys, number):
    before = signal.getsignal(number)
    stop(tmp_path, 5, number)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "stopped by" in line)
    assert line.endswith(
        f"stopped by {number.name} after step 6 of 24, state saved in {tmp_path}: "
        "the same command continues"
    )
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
    state = load_newest(tmp_path / "state.pt")[0]
    assert state["step"] == 4 and state["to_evaluate"]
    check_continues(whole, tmp_path)


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty", "gone"])
def test_torn_state_is_replaced_by_the_one_before(whole, tmp_path, capsys, fault):
    stop(tmp_path, 10)
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


def test_two_damaged_states_are_named(tmp_path):
    for value in (1, 2):
        save_atomically({"x": torch.tensor(value)}, tmp_path / "state.pt", keep_previous=True)
    assert load_newest(tmp_path / "state.pt")[0]["x"] == 2
    for file in tmp_path.iterdir():
        file.write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"state\.pt: damaged.*state\.previous\.pt: damaged"):
        load_newest(tmp_path / "state.pt")
    assert load_newest(tmp_path / "other.pt")[0] is None


def failing(number):
    def fail():
        raise OSError(number, os.strerror(number))

    return fail


def test_a_damaged_state_never_takes_the_place_of_a_whole_one(tmp_path):
    stop(tmp_path / "run", 10)
    (tmp_path / "run" / "state.pt").write_bytes(b"damaged")
    before, _ = load_newest(tmp_path / "run" / "state.pt")
    for operation in range(1, 16):
        folder = shutil.copytree(tmp_path / "run", tmp_path / str(operation))
        before["options"]["folder"] = str(folder)
        torch.save(before, folder / "state.previous.pt")
        fault = at(operation, failing(errno.EIO))
        with file_operations(folder, fault), contextlib.suppress(UserError):
            train(folder)
        after, _ = load_newest(folder / "state.pt")
        assert after["step"] >= before["step"], operation


def test_what_killed_processes_left_is_removed(whole, tmp_path):
    stop(tmp_path, 10)
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine, theirs = temporary_prefix("a.json") + "x.tmp", ".a.json.elsewhere-1-17.x.tmp"
    by_dead = mine.replace(f"-{os.getpid()}.", f"-{dead.pid}.")
    left = [tmp_path / by_dead, tmp_path / theirs.replace("17", "18")]
    on_the_way = [tmp_path / mine, tmp_path / theirs]
    for file in [*left, *on_the_way]:
        file.write_bytes(b"half")
    os.utime(left[1], (0, 0))
    with (tmp_path / "eval_results.txt").open("a") as file:
        file.write("logged, but not saved")
    train(tmp_path)
    assert set(tmp_path.glob(".*.tmp")) == set(on_the_way)
    for file in on_the_way:
        file.unlink()
    check_continues(whole, tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_more_stops_the_run_with_its_last_state(
    whole, tmp_path, monkeypatch, number
):
    """At any operation on files: clear words, and the last state is whole."""
    monkeypatch.setattr(writers, "WATCH_SECONDS", 1.0)
    calls = itertools.count()
    with file_operations(tmp_path, lambda: next(calls)):
        train(tmp_path / "counted")
    operations = next(calls)
    continued = 0
    for operation in {1, 2, 3, *range(4, operations, operations // 10), operations}:
        folder = tmp_path / str(operation)
        with file_operations(folder, at(operation, failing(number))):
            try:
                train(folder)
                continued += 1  # nothing that matters failed
            except UserError as error:
                assert os.strerror(number) in str(error) and str(folder) in str(error)
        check_continues(whole, folder)
    assert continued <= 3


def test_a_disk_that_is_full_amid_a_state_leaves_the_one_before(whole, tmp_path):
    stop(tmp_path, 5)
    size = (tmp_path / "state.pt").stat().st_size // 2
    with file_size_limit(size), pytest.raises(UserError, match="File too large"):
        train(tmp_path)
    assert load_newest(tmp_path / "state.pt")[0]["step"] == 6
    check_continues(whole, tmp_path)


class TestWrongNumbers:
    @pytest.mark.parametrize(("amp", "fused"), [("off", True), ("bf16", False), ("fp16", True)])
    def test_the_run_stops_at_each_and_the_same_command_goes_on(
        self, tmp_path, monkeypatch, amp, fused
    ):
        said = []
        for _ in range(3):  # once an epoch
            with pytest.raises(UserError) as error:
                train(tmp_path / "run", spoil=7, amp=amp, fused=fused)
            said.append(str(error.value))
            state, _ = load_newest(tmp_path / "run" / "state.pt")
            assert all(value.isfinite().all() for value in state["model"].values())
            step = state["step"] - 1
            assert f"failed at step {step}, learning rate 0.1: total nan, other nan;" in said[-1]
            assert f"is saved at step {step + 1}" in said[-1]
            rows = plan_epoch(3, step // 8, 64, 2).order[step % 8 * 8 :][:8]
            assert 7 in rows
            clips = ", ".join(f"clip{row}" for row in rows[:3])
            assert f"clips of its batch: {clips}, ...;" in said[-1]
        assert len(set(said)) == 3
        train(tmp_path / "run", spoil=7, amp=amp, fused=fused)

        # A device that is read later has gone the same way.
        monkeypatch.setattr(FirstNonFinite, "step", lambda self: -1)
        train(tmp_path / "later", spoil=7, amp=amp, fused=fused)
        here, there = (load_newest(tmp_path / name / "state.pt")[0] for name in ("run", "later"))
        assert all(same(here[part], there[part]) for part in ("step", "model", "optimizer"))

    def test_gradients_that_overflow_are_normal_in_fp16_alone(self, tmp_path):
        train(tmp_path / "fp16", huge=5, amp="fp16")
        with pytest.raises(UserError, match="training failed at step 5"):
            train(tmp_path / "off", huge=5)
        stop(tmp_path / "before", 4)
        states = [load_newest(tmp_path / n / "state.pt")[0] for n in ("off", "before")]
        assert states[0]["step"] == 6
        assert all(same(states[0][part], states[1][part]) for part in ("model", "optimizer"))

    def test_gradients_that_overflow_in_fp16_whatever_the_scale(self, tmp_path, monkeypatch):
        monkeypatch.setattr("utils.training.loop.SMALLEST_SCALE", 2.0**16)
        with pytest.raises(UserError, match="overflow in fp16 even unscaled, at step"):
            train(tmp_path, huge=5, amp="fp16")

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
        assert load_newest(tmp_path / "state.pt")[0]["step"] == 3
        assert not list(tmp_path.glob("*.t7"))


LIVES = "tests/utils/training/lives.py"


@pytest.mark.slow
def test_killed_anywhere_all_models_end_with_the_same_bits(simulated):
    printed = succeed(LIVES, "--kills", "3", "--data_root", simulated)
    assert all(printed.count(name) == 2 for name in ("VSLNet", "ReLER", "GroundNLQ")), printed


@pytest.mark.long
def test_killed_often_at_other_points_each_time(simulated):
    seed = int(time.time())
    succeed(LIVES, "--kills", "40", "--data_root", simulated, "--seed", seed)
