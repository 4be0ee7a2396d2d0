"""GroundNLQ's part of training; the loop is utils/training/loop.py.

On a laptop:    GroundNLQ/scripts/train_scratch_nlq.sh cpu nlq egovlp runs/scratch 0.0001
On four GPUs:   GroundNLQ/scripts/train_naq.sh 0,1,2,3 nlq_v2 internvideo runs/naq 10
On two nodes:   torchrun --nnodes 2 --nproc_per_node 4 ... GroundNLQ/main.py --task ... (on each)
"""

import copy
import math

import numpy as np
import torch
from torch import nn

from GroundNLQ.data import Inputs, Targets, open_split
from GroundNLQ.infer import predict
from GroundNLQ.layers import Convolution
from GroundNLQ.losses import Losses, losses, next_normaliser
from GroundNLQ.model import Grounding, GroundNLQ
from GroundNLQ.muon import step_matrices
from GroundNLQ.options import Options
from GroundNLQ.text import open_text
from GroundNLQ.weights import AVERAGE, OPTIONS, WEIGHTS, begin_with, build_model
from utils.training import loop, recipes
from utils.training.checkpoints import find_checkpoint
from utils.training.processes import Processes, Share
from utils.training.recipes import EpochPlan

DECAY = 0.999  # of the average, per step
NORMALISER = 200.0  # initial value
LOWEST_RATE = 1e-8


def train(options: Options) -> None:
    """Train, or continue training, the run that the options name; on SLURM if they say so."""
    loop.train(options, Recipe)


class AveragedModel(nn.Module):
    """A model in training, and running averages of its weights and of positive points per batch."""

    def __init__(self, model: GroundNLQ):
        super().__init__()
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.register_buffer("normaliser", torch.tensor(NORMALISER, dtype=torch.float64))

    @torch.compiler.disable(recursive=False)
    def forward(self, groups: list[Inputs]) -> list[Grounding]:
        """Ground each group of a batch."""
        return [self.model(*inputs) for inputs in groups]

    @torch.no_grad()
    def follow(self, normaliser: torch.Tensor) -> None:
        """Update the averages after a step."""
        averages, weights = list(self.average.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(averages, weights, 1 - DECAY)
        self.normaliser.copy_(normaliser)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters for the optimizer in the published order; only convolutions are decayed."""
    names = {name for name, part in model.named_modules() if isinstance(part, Convolution)}
    decayed, exempt = [], []
    for name, parameter in sorted(model.named_parameters()):
        owner, _, kind = name.rpartition(".")
        (decayed if kind == "weight" and owner in names else exempt).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]


def cosine_schedule(step: int, warmup: int, steps: int, peak: float) -> float:
    """Learning rate that rises linearly from 0 in `warmup` steps, then falls as half a cosine."""
    if step < warmup:
        return peak * step / max(1, warmup - 1)
    share = (step - warmup) / max(1, steps - warmup)
    return LOWEST_RATE + (peak - LOWEST_RATE) / 2 * (1 + math.cos(math.pi * share))


class Recipe(recipes.Recipe):
    """Model, optimizer, losses and evaluation of one training, see `utils.training.recipes`."""

    def __init__(self, options: Options, processes: Processes):
        super().__init__(options, processes, open_split, open_text(options))
        # Draws: jitter of a narration's window, crop of its clip, another clip.
        self.columns = 6 if options.absent else 4
        model = build_model(options, self.train.width, self.train.text_width)
        if options.init_from is not None:
            begin_with(model, find_checkpoint(options.init_from), options.new_heads)
        self.model = AveragedModel(model).to(processes.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model.model, options.weight_decay), lr=options.lr, fused=True
        )
        if options.optimizer == "muon":
            self.optimizer.register_step_pre_hook(step_matrices)
        # Averages are updated only by steps that change the weights.
        self._normaliser = self.model.normaliser
        self.optimizer.register_step_post_hook(lambda *_: self.model.follow(self._normaliser))

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """Linear warm-up, then cosine decay to nearly 0."""
        options = self.options
        warmup = round(options.warmup_epochs * steps_per_epoch)
        return cosine_schedule(step, warmup, options.epochs * steps_per_epoch, options.lr)

    def batch(self, share: Share, plan: EpochPlan) -> tuple[list[tuple[Inputs, Targets]], int]:
        """The share's tensors, and the number of positive points of the whole batch."""
        return self.train.batch(share, plan.draws, self.processes.device)

    def losses(
        self, network: nn.Module, batch: tuple[list[tuple[Inputs, Targets]], int]
    ) -> dict[str, torch.Tensor]:
        """Losses of a share."""
        groups, positives = batch
        self._normaliser = next_normaliser(self.model.normaliser, positives)
        # Gradients are averaged over the processes: each one divides by its share.
        divisor = (self._normaliser / self.processes.size).float()
        groundings = network([inputs for inputs, _ in groups])
        parts = [
            losses(grounding, *targets, divisor)
            for grounding, (_, targets) in zip(groundings, groups, strict=True)
        ]
        return {name: sum(getattr(part, name) for part in parts) for name in Losses._fields}

    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        """Windows of the validation split and their scores."""
        model = self.model.average if self.options.use_average else self.model.model
        return predict(model, self.val, self.options, self.processes)

    def checkpoint(self, epoch: int, step: int) -> tuple[str, dict]:
        """Weights, their average, optimizer and epoch, in the published layout; the options."""
        content = {
            "epoch": epoch,
            WEIGHTS: self.model.model.state_dict(),
            AVERAGE: self.model.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            OPTIONS: vars(self.options),
        }
        return f"model_{step}.t7", content
