"""VSLNet's part of training; the loop is utils/training/loop.py.

On a laptop:    VSLNet/scripts/train_scratch_nlq.sh cpu nlq egovlp runs/scratch 0.001
On four GPUs:   VSLNet/scripts/train_naq.sh 0,1,2,3 nlq egovlp runs/naq 2.5
On two nodes:   torchrun --nnodes 2 --nproc_per_node 4 ... VSLNet/main.py --task ... (on each)
"""

import numpy as np
import torch
from torch import nn

from utils.base.tensor_files import load_safely
from utils.training import loop, recipes
from utils.training.checkpoints import find_checkpoint
from utils.training.processes import Processes, Share
from utils.training.recipes import EpochPlan
from VSLNet.data import Batch, open_split
from VSLNet.infer import predict
from VSLNet.model import VSLNet, losses, parameter_groups
from VSLNet.options import Options
from VSLNet.text import open_text
from VSLNet.weights import build_model, checkpoint_state, load_weights, with_padding


def train(options: Options) -> None:
    """Train, or continue training, the run that the options name; on SLURM if they say so."""
    loop.train(with_padding(options), Recipe)


def linear_schedule(step: int, steps: int, peak: float, warmup: float) -> float:
    """Learning rate that rises linearly over `warmup * steps`, then falls linearly to 0."""
    rising = warmup * steps
    if step < rising:
        return peak * step / max(1.0, rising)
    return peak * (steps - step) / max(1.0, steps - rising)


class Recipe(recipes.Recipe):
    """Model, optimizer, losses and evaluation of one training, see `utils.training.recipes`."""

    evaluations = 2

    def __init__(self, options: Options, processes: Processes):
        self.text = open_text(options)
        super().__init__(options, processes, open_split, self.text)
        self.model: VSLNet = build_model(options, self.train.features.width, self.text)
        if options.init_from is not None:
            file = find_checkpoint(options.init_from)
            load_weights(self.model, load_safely(file), file)
        self.model.to(processes.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model), lr=options.init_lr, eps=1e-6, fused=True
        )

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """Linear warm-up, then linear decay to 0 over all steps."""
        options = self.options
        steps = steps_per_epoch * options.epochs
        return linear_schedule(step, steps, options.init_lr, options.warmup_proportion)

    def batch(self, share: Share, plan: EpochPlan) -> Batch:
        """The share's tensors on the device."""
        return self.train.batch(share, plan.draws, self.processes.device)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Span and highlight losses of a share."""
        out = network(batch.video, batch.video_mask, *batch.text)
        return losses(
            out,
            batch.start,
            batch.end,
            batch.highlight,
            batch.video_mask,
            self.options.highlight_lambda,
            batch.units_total,
            batch.weight,
        )._asdict()

    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        """Windows of the validation split and their scores."""
        return predict(self.model, self.val, self.options, self.processes)

    def predictions_name(self, epoch: int, step: int) -> str:
        """As published."""
        return f"{self.options.model_name}_{epoch}_{step}_preds.json"

    def checkpoint(self, epoch: int, step: int) -> tuple[str, dict]:
        """A plain state dict in the published layout."""
        name = f"{self.options.model_name}_{step}.t7"
        return name, checkpoint_state(self.model, self.text, self.options.save_text_encoder)
