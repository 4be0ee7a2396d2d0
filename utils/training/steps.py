"""Training steps: batches, gradients, and updates of the weights."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import nn

from utils.base.machine import ahead
from utils.training.guard import FirstNonFinite, clip_gradients
from utils.training.memory import free_memory, measured_peak, pieces_that_fit
from utils.training.options import TrainingOptions
from utils.training.precision import autocast, fast_products, make_scaler
from utils.training.processes import Processes, Share
from utils.training.recipes import EpochPlan, Recipe, plan_epoch, steps_per_epoch

SHAPES = 64  # of batches, at most: lengths of queries, numbers of parts, the last batch of an epoch
# Queries of a batch, at most, for which a GPU waits for the launch of its kernels, unless they are
# replayed as a CUDA graph.
LAUNCH_BOUND = 64


class Stepper:
    """Takes the steps of a recipe; the random draws of a step depend on the seed and the step."""

    def __init__(self, recipe: Recipe, options: TrainingOptions, processes: Processes):
        self.recipe = recipe
        self.options = options
        self.processes = processes
        self.rows = len(recipe.train.records)
        self.steps = steps_per_epoch(self.rows, options.batch_size, processes.size)
        self.total = self.steps * options.epochs
        self.pieces = options.accumulate  # of a batch; 0: not known yet
        self.scaler = make_scaler(processes.device, options.amp)
        self.first_nonfinite = FirstNonFinite(processes.device)
        self._plan: EpochPlan | None = None  # of the current epoch

    def network(self) -> nn.Module:
        """The model, compiled if the options say so."""
        network: nn.Module = self.recipe.model
        if self.options.compile:
            network = compiled(network, self.processes.device, self.options.batch_size)
        self.processes.shorten_patience()
        return network

    def cut_batches(self) -> None:
        """Choose in how many pieces a batch fits the GPU: measure steps on a few queries."""
        device = self.processes.device
        if device.type == "cpu":
            self.pieces = self.pieces or 1
        if self.pieces:
            return
        plan, rows = self.plan(0), self.batch_rows(0)

        def peak(queries: int) -> int:
            share = Share(rows, np.arange(queries), self.processes.size)
            peak = measured_peak(
                device, lambda: self.backward(self.recipe.model, [self.recipe.batch(share, plan)])
            )
            self.recipe.optimizer.zero_grad(set_to_none=True)
            return peak

        queries, free = len(self.processes.shard(rows)), free_memory(device)
        (self.pieces,) = self.processes.largest(pieces_that_fit(queries, peak, free))
        if self.processes.main:
            note = f"; batches are computed in {self.pieces} pieces" if self.pieces > 1 else ""
            allocated = torch.cuda.memory_allocated(device)
            print(
                f"features, tokens and model take {allocated / 1e9:.1f} GB of GPU memory, "
                f"{free / 1e9:.1f} GB are left for the step{note}"
            )

    def plan(self, step: int) -> EpochPlan:
        if self._plan is None or self._plan.epoch != step // self.steps:
            epoch = step // self.steps
            self._plan = plan_epoch(self.options.seed, epoch, self.rows, self.recipe.columns)
        return self._plan

    def batch_rows(self, step: int) -> np.ndarray:
        size = self.options.batch_size
        return self.plan(step).order[step % self.steps * size :][:size]

    def batches(self, first_step: int) -> Iterator[tuple[int, list]]:
        """The steps from `first_step` to the end of its epoch, and their batches in pieces.

        Seeds torch for each step. On a GPU a thread gathers the batches ahead; on a CPU it would
        compete with the step.
        """
        plan = self.plan(first_step)

        def gather(step: int) -> list:
            shares = self.processes.shares(self.batch_rows(step), self.pieces)
            return [self.recipe.batch(share, plan) for share in shares]

        steps = range(first_step, (plan.epoch + 1) * self.steps)
        if self.processes.device.type == "cpu" or self.recipe.live:
            for step in steps:
                self.seed(step)
                yield step, gather(step)
            return
        use_device = partial(torch.cuda.set_device, self.processes.device)
        gathered = ahead(gather, steps, threads=1, begin=use_device, waiting=1)
        for step, batch in zip(steps, gathered, strict=True):
            self.seed(step)
            yield step, batch

    def seed(self, step: int) -> None:
        """Seed torch for a step on this process."""
        processes = self.processes
        number = (self.options.seed * self.total + step) * processes.size + processes.rank
        torch.manual_seed(number)

    def take(
        self, network: nn.Module, batch: list, step: int
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Update the weights if the gradients are finite; returns losses and gradient norm."""
        if self.options.compile:
            torch.compiler.cudagraph_mark_step_begin()  # imports the compiler
        optimizer, fp16 = self.recipe.optimizer, self.options.amp == "fp16"
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(step, self.steps)
        network.train()
        losses = self.backward(network, batch)
        self.processes.average([p.grad for p in self.recipe.model.parameters()])
        if fp16:
            self.scaler.unscale_(optimizer)
        norm = clip_gradients(self.recipe.model, self.options.clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update(None if fp16 else 1.0)
        optimizer.zero_grad(set_to_none=True)
        # In fp16 gradients may overflow until the scaler has lowered its scale.
        self.first_nonfinite.note(step, losses, losses["total"] if fp16 else norm)
        return losses, norm

    def backward(self, network: nn.Module, batch: list) -> dict[str, torch.Tensor]:
        """Accumulate the gradients of a batch's pieces; returns the sums of their losses."""
        losses: dict[str, torch.Tensor] = {}
        device = self.processes.device
        for piece in batch:
            with fast_products(device):
                with autocast(device, self.options.amp):
                    piece_losses = self.recipe.losses(network, piece)
                self.scaler.scale(piece_losses["total"]).backward()
            losses = {k: losses.get(k, 0) + loss.detach() for k, loss in piece_losses.items()}
        return losses


def compiled(network: nn.Module, device: torch.device, queries: int) -> nn.Module:
    """The network, compiled for each shape of its inputs; batches have `queries` queries."""
    torch._dynamo.config.recompile_limit = SHAPES
    graphs = device.type == "cuda" and queries <= LAUNCH_BOUND
    return torch.compile(network, dynamic=False, mode="reduce-overhead" if graphs else None)
