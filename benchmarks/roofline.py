"""The cost of a training step, and the share of this machine's speed that it reaches.

Counts the floating-point operations of the matrix products of a step (forward and backward), the
bytes that its operators read and write, and the bytes that autograd keeps for the backward pass;
measures the machine's ceilings (matrix product, copy) with the same number of threads; times the
step. The share of a ceiling is the time that products (or copies) alone would take, divided by the
time of the step.

    python benchmarks/roofline.py                  # all models, float32
    python benchmarks/roofline.py --device cuda --dtype bfloat16 --vslnet_batch 2048
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import groundnlq_step, reler_step, vslnet_step
from benchmarks.timing import Loss, circumstances, median_time, training_step
from ReLER.model import ReLER
from ReLER.options import ModelOptions
from utils.base.errors import run_program
from utils.base.options import ArgumentParser
from utils.base.stages import NAQ, STAGES
from VSLNet.model import VSLNet, parameter_groups

QUERIES = 850_000  # of NLQ and NaQ, v1
CEILING_SIZE = {"cpu": 2048, "cuda": 8192}


def main(arguments: list[str] | None = None) -> None:
    """Print the ceilings, then each model's step."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="in")
    parser.add_argument("--vslnet_batch", type=int, default=32, help="queries a step")
    parser.add_argument("--reler_batch", type=int, default=16, help="queries a step")
    parser.add_argument("--groundnlq_batch", type=int, default=2, help="queries a step")
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    options = parser.parse_args(arguments)
    dtype = getattr(torch, options.dtype)

    products, copies = ceilings(options.device, dtype)
    print(
        f"{options.device}, {options.dtype}, {circumstances()}: matrix product "
        f"{products / 1e9:.0f} GFLOP/s, copy {copies / 1e9:.1f} GB/s"
    )
    for name, batch, make in (
        ("VSLNet, 256 dims", options.vslnet_batch, vslnet),
        ("VSLNet, 2304 dims", options.vslnet_batch, partial(vslnet, width=2304)),
        ("ReLER, 256+512 dims", options.reler_batch, reler),
        ("ReLER, 2304+512 dims", options.reler_batch, partial(reler, width=2304)),
        ("GroundNLQ, 256 dims", options.groundnlq_batch, groundnlq),
        ("GroundNLQ, 2304 dims", options.groundnlq_batch, partial(groundnlq, width=2304)),
    ):
        model, loss = make(batch, device=options.device)
        model.to(options.device).train()
        optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-6, fused=True)
        step = training_step(loss, optimizer, 1.0, dtype, options.device)
        operations, traffic = cost(step)
        saved = saved_bytes(loss, dtype, options.device)
        seconds = median_time(step, options.steps, options.device)
        rate, epochs = batch / seconds, STAGES[name.split(",")[0]][NAQ].epochs
        print(
            f"{name}, batch {batch}: {operations / 1e9:.0f} GFLOP, {traffic / 1e9:.1f} GB by its "
            f"operators, {saved / batch / 1e6:.1f} MB a query kept for the backward pass; "
            f"{1e3 * seconds:.0f} ms a step: {operations / products / seconds:.0%} of the product "
            f"ceiling, {traffic / copies / seconds:.0%} of the copy ceiling; {rate:.1f} queries/s, "
            f"{QUERIES * epochs / rate / 3600:,.0f} hours for {epochs} epochs of {QUERIES:,} "
            "queries",
            flush=True,
        )


def vslnet(batch: int, device: str, width: int = 256) -> tuple[nn.Module, Loss]:
    """The published size, 128 units."""
    torch.manual_seed(0)
    model = VSLNet(width, vslnet_step.TEXT_WIDTH, max_pos_len=128)
    content = moved(vslnet_step.random_batch(batch, 128, width), device)
    return model, lambda: vslnet_step.our_loss(model, content)


def reler(batch: int, device: str, width: int = 256) -> tuple[nn.Module, Loss]:
    """The published size, 600 units, 4 parts: the mean of the scales."""
    torch.manual_seed(0)
    width += reler_step.FURTHER_DIMS
    model = ReLER(ModelOptions(), width)
    content = moved(reler_step.random_batch(batch, 600, width), device)
    return model, lambda: reler_step.our_loss(model, content, 4)


def groundnlq(batch: int, device: str, width: int = 256) -> tuple[nn.Module, Loss]:
    """The published size, clips of 900 rows."""
    model = groundnlq_step.make_model(width)
    content = moved(groundnlq_step.random_batch(batch, 900, width), device)
    return model, lambda: groundnlq_step.our_loss(model, content)


def moved(batch: Any, device: str) -> Any:
    """A batch on a device."""
    return tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, batch)


class Traffic(TorchDispatchMode):
    """Counts the bytes of every tensor that an operator reads or writes; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = operator(*args, **(kwargs or {}))
        if not operator.is_view:
            tensors = tree_leaves((args, kwargs, out))
            self.bytes += sum(x.nbytes for x in tensors if isinstance(x, torch.Tensor))
        return out


def cost(step: Callable[[], None]) -> tuple[int, int]:
    """Floating-point operations of the matrix products of a step, and bytes moved."""
    step()
    with FlopCounterMode(display=False) as operations:
        step()
    with Traffic() as traffic:
        step()
    return operations.get_total_flops(), traffic.bytes


def saved_bytes(loss: Callable[[], torch.Tensor], dtype: torch.dtype, device: str) -> int:
    """Bytes that autograd keeps for the backward pass of a loss computed in `dtype`."""
    storages = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast(device, dtype, enabled=dtype != torch.float32),
    ):
        loss()
    return sum(storage.nbytes() for storage in storages.values())


def ceilings(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Operations a second of a large matrix product, and bytes a second of a large copy."""
    size = CEILING_SIZE[device]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    products = 2 * size**3 / median_time(lambda: a @ b, 7, device)
    source = torch.randn(2**26 if device == "cpu" else 2**30, device=device)
    target = torch.empty_like(source)
    return products, 2 * source.nbytes / median_time(lambda: target.copy_(source), 7, device)


if __name__ == "__main__":
    run_program(main)
