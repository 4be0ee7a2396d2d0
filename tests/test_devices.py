"""What a step asks of a GPU, seen without one: tensors without content stand for those on it.

A training step must neither copy from the host and wait, nor need a value on the host, nor mix
devices. Computed in pieces it must give the gradients of the whole batch.
"""

import signal
import subprocess
import time
from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import GroundNLQ.options
import GroundNLQ.train
import ReLER.options
import ReLER.train
import VSLNet.options
import VSLNet.train
from tests.simulated import ROOT, succeed
from utils.training import processes
from utils.training.guard import FirstNonFinite, clip_gradients
from utils.training.processes import Processes
from utils.training.recipes import plan_epoch
from utils.training.steps import Stepper, compiled

MODELS = {"vslnet": VSLNet, "reler": ReLER, "groundnlq": GroundNLQ}
CPU, META = torch.device("cpu"), torch.device("meta")
TINY = {  # and without randomness in the step
    "vslnet": {"video_feature_dim": 256, "dim": 16, "num_heads": 2, "max_pos_len": 64,
               "drop_rate": 0.0, "padding": "masked"},
    "reler": {"hidden_dim": 16, "bi_num_attention_heads": 2, "max_v_l": 64,
              "conditioned_span_pred_num_heads": 2, "input_dropout": 0.0,
              "cross_input_dropout": 0.0, "v_attention_probs_dropout_prob": 0.0,
              "attention_probs_dropout_prob": 0.0, "v_hidden_dropout_prob": 0.0,
              "hidden_dropout_prob": 0.0, "conditioned_span_pred_drop_rate": 0.0},
    "groundnlq": {"dim": 16, "num_heads": 2, "arch": [1, 1, 1, 0, 2], "drop_path": 0.0},
}  # fmt: skip
ATEN = torch.ops.aten
COPIES = (ATEN._to_copy.default, ATEN.to.dtype_layout, ATEN.copy_.default)


class Watch(TorchDispatchMode):
    """Fails when an operator makes the host wait for the device, or mixes devices."""

    def __init__(self):
        super().__init__()
        self.copies = 0  # from the host

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        out = operator(*args, **kwargs)
        devices = {x.device.type for x in tensors if x.ndim}
        outputs = {x.device.type for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
        if "meta" not in devices | outputs:
            return out
        if operator in COPIES and devices == {"cpu"}:
            assert kwargs.get("non_blocking"), f"{operator} from the host waits for the device"
            self.copies += 1
        else:
            assert "cpu" not in devices | outputs, f"{operator} of tensors on {devices | outputs}"
            assert torch.Tag.data_dependent_output not in operator.tags, f"{operator} waits"
        return out


@pytest.fixture(params=MODELS)
def make_recipe(request, simulated, tmp_path, monkeypatch):
    """Makes the training of a model on a device; stores are built on the CPU before."""
    package = MODELS[request.param]
    adamw = torch.optim.AdamW

    def make(device, **settings):
        options = package.options.Options(
            task="nlq_aug_naq_official_v1", fv="egovlp", data_root=str(simulated),
            text_encoder="minilm", nar_exp_factor=2.5, cache_dir=str(tmp_path),
            **TINY[request.param], **settings,
        )  # fmt: skip
        torch.manual_seed(0)
        if device.type == "meta":
            package.train.Recipe(options, Processes(0, 1, CPU))
            # The fused optimizer has no kernel for tensors without content.
            unfused = lambda *arguments, fused, **kwargs: adamw(*arguments, **kwargs)  # noqa: E731
            monkeypatch.setattr(torch.optim, "AdamW", unfused)
            # Nor do they know autocast.
            monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
            monkeypatch.setattr(torch, "autocast", lambda *arguments, **kwargs: nullcontext())
        return package.train.Recipe(options, Processes(0, 1, device))

    return make


def shares_of(recipe, pieces, plan, count=11):
    """A batch of so many queries in pieces."""
    shares = recipe.processes.shares(plan.order[:count], pieces)
    return [recipe.batch(share, plan) for share in shares]


@pytest.mark.parametrize("features", ["cuda", "cpu"])
def test_nothing_in_a_step_waits(make_recipe, features):
    recipe = make_recipe(META, feature_device=features)
    plan = plan_epoch(1, 0, len(recipe.train.records), recipe.columns)
    recipe.model.train()
    first_nonfinite = FirstNonFinite(META)
    with Watch() as watch:
        (batch,) = shares_of(recipe, 1, plan)
        losses = recipe.losses(recipe.model, batch)
        losses["total"].backward()
        norm = clip_gradients(recipe.model, 1.0)
        first_nonfinite.note(0, losses, norm)
    assert all(p.grad.device == META for p in recipe.model.parameters() if p.requires_grad)
    assert 0 < watch.copies < 20


def test_nothing_in_a_prediction_waits_but_for_its_result(make_recipe, monkeypatch):
    recipe = make_recipe(META, feature_device="cuda")
    read = torch.Tensor.cpu
    result = lambda x: torch.zeros(x.shape, dtype=x.dtype) if x.is_meta else read(x)  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "cpu", result)
    with Watch() as watch:
        windows, scores = recipe.predict()
    assert windows.shape == (len(recipe.val.records), 5, 2) and scores.shape == windows.shape[:2]
    assert watch.copies > 0


def test_a_thread_gathers_batches_ahead(make_recipe, monkeypatch):
    recipe = make_recipe(META, batch_size=30, feature_device="cuda")
    devices = []
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    stepper = Stepper(recipe, recipe.options, recipe.processes)
    stepper.pieces = 2
    plan = stepper.plan(0)
    batches = dict(stepper.batches(1))
    assert list(batches) == list(range(1, stepper.steps)) and devices == [META]
    for step, batch in batches.items():
        shares = recipe.processes.shares(stepper.batch_rows(step), 2)
        for piece, share in zip(batch, shares, strict=True):
            assert shapes(piece) == shapes(recipe.batch(share, plan))


def shapes(batch):
    """Of all tensors of a batch."""
    return [x.shape for x in tree_leaves(batch) if isinstance(x, torch.Tensor)]


def test_pieces_of_a_batch_and_processes_that_share_it_give_its_gradients(make_recipe):
    recipe = make_recipe(CPU)
    plan = plan_epoch(1, 0, len(recipe.train.records), recipe.columns)
    results = []
    for size, pieces in ((1, 1), (1, 3), (1, 100), (2, 1), (3, 2)):
        sums = {}
        for rank in range(size):
            recipe.processes = Processes(rank, size, CPU)
            for share in recipe.processes.shares(plan.order[:12], pieces):
                losses = recipe.losses(recipe.model, recipe.batch(share, plan))
                (losses["total"] / size).backward()  # gradients of processes are averaged
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0) + loss.item() / size
        gradients = [p.grad for p in recipe.model.parameters() if p.grad is not None]
        results.append((sums, torch.cat([gradient.flatten() for gradient in gradients])))
        recipe.model.zero_grad()
    (whole, expected), *others = results
    for sums, found in others:
        assert sums == pytest.approx(whole, rel=1e-5)
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("device", "queries", "mode"),
    [("cuda", 32, "reduce-overhead"), ("cuda", 768, None), ("cpu", 32, None)],
)
def test_small_batches_are_replayed_as_cuda_graphs(monkeypatch, device, queries, mode):
    modes = []
    monkeypatch.setattr(torch, "compile", lambda *_, mode, **__: modes.append(mode))
    compiled(torch.nn.Linear(1, 1), torch.device(device), queries)
    assert modes == [mode]


class Event:
    """Of a GPU that has nothing left to do, or waits for the gradients of a lost process."""

    waits = False

    def record(self):
        self.recorded = True

    def query(self):
        return self.recorded and not self.waits


@pytest.mark.parametrize("waits", [False, True])
def test_a_gpu_that_waits_for_a_lost_process_is_told_from_one_that_ends(monkeypatch, waits):
    aborted = []
    monkeypatch.setattr(Event, "waits", waits)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(processes, "DEVICE_PATIENCE", timedelta(seconds=0.2))
    world = SimpleNamespace(abort=lambda: aborted.append(1))
    monkeypatch.setattr(processes.dist, "group", SimpleNamespace(WORLD=world))
    gpu = Processes(0, 2, torch.device("cuda", 0))
    assert gpu.device_finishes() is not waits
    assert aborted == [1] * waits
    assert Processes(0, 2, CPU).device_finishes()


# On a GPU, where there is one.

GPUS = torch.cuda.device_count()


def needs_gpus(number):
    """Marks a test for machines with so many."""
    reason = f"needs {number} GPUs, there are {GPUS}"
    return [pytest.mark.cuda, pytest.mark.skipif(number > GPUS, reason=reason)]


def needs_gpu(test):
    for mark in needs_gpus(1):
        test = mark(test)
    return test


STEPS = 20


def losses_of_steps(recipe):
    """Total losses of the first steps of a training."""
    stepper = Stepper(recipe, recipe.options, recipe.processes)
    stepper.cut_batches()
    network, totals = stepper.network(), []
    while len(totals) < STEPS:
        for step, batch in stepper.batches(len(totals)):
            totals.append(stepper.take(network, batch, step)[0]["total"].item())
    return torch.tensor(totals[:STEPS])


@needs_gpu
@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({"feature_device": "cuda"}, 1e-3),
        ({"feature_device": "cpu"}, 1e-3),
        ({"accumulate": 3}, 1e-3),
        ({"amp": "bf16"}, 5e-2),
        ({"amp": "fp16"}, 5e-2),
        ({"compile": True}, 1e-3),
    ],
    ids=["resident", "host", "pieces", "bf16", "fp16", "compiled"],
)
def test_losses_are_those_of_the_cpu(make_recipe, settings, tolerance):
    expected = losses_of_steps(make_recipe(CPU, batch_size=30))
    found = losses_of_steps(make_recipe(torch.device("cuda", 0), batch_size=30, **settings))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@needs_gpu
def test_windows_are_those_of_the_cpu(make_recipe):
    (expected, scores), (found, found_scores) = (
        make_recipe(device).predict() for device in (CPU, torch.device("cuda", 0))
    )
    same = np.isclose(found, expected, atol=1e-3).all((1, 2))
    assert same.mean() > 0.95  # of nearly equal scores either may come first
    assert np.allclose(found_scores, scores, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "devices", [pytest.param("0", marks=needs_gpus(1)), pytest.param("0,1", marks=needs_gpus(2))]
)
def test_a_training_on_gpus_is_stopped_continued_and_predicts(simulated, tmp_path, devices):
    script = "VSLNet/scripts/train_scratch_nlq.sh"
    tiny = ("--text_encoder", "minilm", "--dim", "16", "--num_heads", "2", "--epochs", "4",
            "--data_root", simulated, "--save_every_minutes", "0")  # fmt: skip
    arguments = (devices, "nlq", "egovlp", tmp_path, "0.001", *tiny)
    job = subprocess.Popen(["bash", str(ROOT / script), *map(str, arguments)])
    while not list(tmp_path.rglob("metrics.jsonl")) and job.poll() is None:
        time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=200) in (0, 128 + signal.SIGTERM)
    succeed(script, *arguments)
    printed = succeed("VSLNet/scripts/infer.sh", devices, "nlq", "val", "egovlp", tmp_path,
                      "--data_root", simulated)  # fmt: skip
    assert "Rank@1" in printed
