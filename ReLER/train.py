"""ReLER's part of training; the loop is utils/training/loop.py.

On a laptop:    ReLER/scripts/train_scratch_nlq.sh cpu nlq egovlp runs/scratch 0.0001
On four GPUs:   ReLER/scripts/train_naq.sh 0,1,2,3 nlq egovlp runs/naq 2.5
On two nodes:   torchrun --nnodes 2 --nproc_per_node 4 ... ReLER/main.py --task ... (on each)
"""

import numpy as np
import torch
from torch import nn

from ReLER.augment import COLUMNS, draw_parts
from ReLER.data import Inputs, open_split
from ReLER.infer import predict
from ReLER.losses import Targets, losses
from ReLER.model import ReLER
from ReLER.options import Options
from ReLER.text import open_text
from ReLER.weights import SCHEDULER_GAMMA, build_model, checkpoint_content, read_checkpoint
from utils.base.errors import UserError
from utils.training import loop, recipes
from utils.training.checkpoints import find_checkpoint, fit_optimizer, fit_state
from utils.training.processes import Processes, Share
from utils.training.recipes import EpochPlan


def train(options: Options) -> None:
    """Train, or continue training, the run that the options name; on SLURM if they say so."""
    loop.train(options, Recipe)


class Recipe(recipes.Recipe):
    """Model, optimizer, losses and evaluation of one training, see `utils.training.recipes`."""

    columns = COLUMNS

    def __init__(self, options: Options, processes: Processes):
        text, device = open_text(options), processes.device
        super().__init__(options, processes, open_split, text)
        self.model: ReLER = build_model(options, self.train.width, text.width).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=options.lr, weight_decay=options.wd, fused=True
        )
        if options.init_from is not None:
            self._begin_with(options.init_from)

    def _begin_with(self, checkpoint: str) -> None:
        options, file = self.options, find_checkpoint(checkpoint)
        content = read_checkpoint(file)
        fit_state(self.model, content["model"], file)
        if options.resume_opt or options.resume_all:
            fit_optimizer(self.optimizer, content.get("optimizer"), file)
        if options.resume_all:
            if type(content.get("epoch")) is not int or content["epoch"] < 0:
                raise UserError(f"{file}: its 'epoch' is not a number; resume the weights only")
            self.first_epoch = content["epoch"] + 1
            if self.first_epoch >= options.epochs:
                raise UserError(
                    f"{file}: has been trained for {self.first_epoch} epochs; --epochs "
                    f"{options.epochs} leaves nothing to do"
                )

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """Dropped by 10 after every `lr_drop` epochs."""
        epoch = step // steps_per_epoch
        return self.options.lr * SCHEDULER_GAMMA ** (epoch // self.options.lr_drop)

    def batch(self, share: Share, plan: EpochPlan) -> tuple[Inputs, Targets, int]:
        """The share's tensors on the device; each batch draws its number of parts."""
        parts = draw_parts(plan.draws[share.rows[0]])
        device = self.processes.device
        return *self.train.batch(share, parts, plan.draws, device), parts

    def losses(
        self, network: nn.Module, batch: tuple[Inputs, Targets, int]
    ) -> dict[str, torch.Tensor]:
        """All losses of a share."""
        inputs, targets, parts = batch
        outputs = network(*inputs, parts)
        return losses(outputs, targets, inputs.video_mask, self.options)

    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        """Windows of the validation split and their scores."""
        return predict(self.model, self.val, self.options, self.processes)

    def checkpoint(self, epoch: int, step: int) -> tuple[str, dict]:
        """Weights, optimizer, scheduler, epoch and options, in the published layout."""
        content = checkpoint_content(self.model, self.optimizer, self.options, epoch)
        return f"model_{step}.t7", content
