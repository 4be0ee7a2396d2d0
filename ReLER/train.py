"""ReLER's training: what is particular to it; the loop itself is utils/training/loop.py.

On a laptop:    ReLER/scripts/train_scratch_nlq.sh cpu nlq egovlp runs/scratch 0.0001
On four GPUs:   ReLER/scripts/train_naq.sh 0,1,2,3 nlq egovlp runs/naq 2.5
On two nodes:   torchrun --nnodes 2 --nproc_per_node 4 ... ReLER/main.py --task ... (on each)
"""

import dataclasses

import numpy as np
import torch
from torch import nn

from ReLER.augment import draw_parts
from ReLER.data import Key, open_split
from ReLER.infer import predict
from ReLER.losses import losses
from ReLER.model import ReLER
from ReLER.options import FREE_OPTIONS, OPTIONS_FILE, Options
from ReLER.text import TEXT_FILE, open_text
from ReLER.weights import (
    SCHEDULER_GAMMA,
    build_model,
    checkpoint_content,
    load_optimizer,
    load_weights,
    read_checkpoint,
)
from utils.base.errors import UserError
from utils.evaluation.predictions import write_results
from utils.evaluation.scoring import ground_truth, report, score
from utils.training.checkpoints import find_checkpoint
from utils.training.loop import EpochPlan, Evaluation, Schedule, fit
from utils.training.processes import Processes, start_processes
from utils.training.runs import Run, input_files
from utils.training.slurm import Cluster, submit
from utils.training.timelines import examples


class Recipe:
    """Model, optimizer, losses and evaluation of one training, see `utils.training.loop.Recipe`."""

    def __init__(self, options: Options, processes: Processes, schedule: Schedule):
        self.options = options
        self.processes = processes
        self.text = open_text(options)
        device = processes.device
        self.train, self.listed = open_split(options, "train", self.text, device, True)
        self.val, listed = open_split(options, "val", self.text, device, True)
        self.truth = ground_truth(self.val.records, listed, options.eval_gt_json)
        if self.truth is None:
            raise UserError(
                f"{options.eval_gt_json or 'val.json'}: holds no times, and training needs a split "
                "with times to choose checkpoints by; give --eval_gt_json"
            )
        self.rows = len(self.train)
        self.steps = schedule.steps_per_epoch(self.rows, processes.size)
        self.model: ReLER = build_model(options, self.train.width, self.text.width)
        self.model.to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=options.lr, weight_decay=options.wd, fused=True
        )
        self.first_epoch = 0
        if options.resume is not None:
            self._resume()

    def _resume(self) -> None:
        file = find_checkpoint(self.options.resume)
        content = read_checkpoint(file)
        load_weights(self.model, content, file)
        if self.options.resume_opt or self.options.resume_all:
            load_optimizer(self.optimizer, content, file)
        if self.options.resume_all:
            if type(content.get("epoch")) is not int or content["epoch"] < 0:
                raise UserError(f"{file}: its 'epoch' is no number; resume the weights only")
            self.first_epoch = content["epoch"] + 1
            if self.first_epoch >= self.options.epochs:
                raise UserError(
                    f"{file}: has been trained for {self.first_epoch} epochs; --epochs "
                    f"{self.options.epochs} leaves nothing to do"
                )

    def learning_rate(self, step: int) -> float:
        """Dropped by 10 after every `lr_drop` epochs."""
        epoch = step // self.steps
        return self.options.lr * SCHEDULER_GAMMA ** (epoch // self.options.lr_drop)

    def losses(
        self, network: nn.Module, rows: np.ndarray, plan: EpochPlan, step: int
    ) -> dict[str, torch.Tensor]:
        """All losses of this process's share of the rows, cut into a number of parts drawn anew."""
        parts = draw_parts(self.options.seed, step)
        key = Key(self.options.seed, plan.epoch)
        batch = self.train.batch(rows, parts, key, self.processes)
        outputs = network(batch.video, batch.video_mask, batch.text, batch.text_mask, parts)
        return losses(outputs, batch.targets, batch.video_mask, self.options)

    def evaluate(self, epoch: int, step: int) -> Evaluation:
        """Predict and score the validation split; its predictions are kept beside the scores."""
        windows, scores = predict(self.model, self.val, self.options, self.processes)
        if self.processes.main:
            name = self.options.run_folder / f"{epoch}_preds.json"
            write_results(name, self.val.records.keys, windows, scores)
        scored = score(self.truth, windows)
        figures = scored.percentages()
        records = self.val.records
        queries = [records.sentences[number] for number in records.sentence]
        shown = examples(queries, records.duration, self.truth.seconds, windows)
        table = report(scored, f"Epoch {epoch}")
        return Evaluation(figures["R@1 IoU=0.3"], figures, table, shown)

    def clips(self, rows: np.ndarray) -> list[str]:
        """The clips of training queries."""
        records = self.train.records
        return [records.clip_uids[clip] for clip in records.clip[rows]]

    def checkpoint(self, epoch: int, step: int) -> tuple[str, dict]:
        """Weights, optimizer, scheduler, epoch and options, in the published layout."""
        content = checkpoint_content(self.model, self.optimizer, self.options, epoch)
        return f"model_{step}.t7", content


def train(options: Options) -> None:
    """Train, or continue training, the run that the options name; on SLURM if they say so."""
    if options.slurm:
        here = dataclasses.replace(options, slurm=False)
        submit(train, here, options.run_folder / "slurm", Cluster.of(options))
        return
    schedule = Schedule(
        epochs=options.epochs,
        batch_size=options.batch_size,
        clip_norm=options.grad_clip,
        seed=options.seed,
        evaluations=1,
        eval_period=options.eval_period,
        amp=options.amp,
        compile=options.compile,
        log_every=options.tb_log_freq,
        save_every_minutes=options.save_every_minutes,
        profile=options.profile,
    )
    with start_processes() as processes:
        recipe = Recipe(options, processes, schedule)
        folder = options.run_folder
        run = Run(
            folder,
            options,
            OPTIONS_FILE,
            processes,
            FREE_OPTIONS,
            folder / "tensorboard_log",
            "train.log.txt",
            input_files(options, options.fv, "clip", start=options.resume),
            {TEXT_FILE: recipe.text.describe()},
        )
        if processes.main:
            parameters = sum(p.numel() for p in recipe.model.parameters() if p.requires_grad)
            print(
                f"training on {recipe.rows} of {recipe.listed} queries, validating on "
                f"{len(recipe.val)} of {recipe.truth.listed}; {parameters:,} parameters; "
                f"run folder {folder}"
            )
        fit(recipe, schedule, run, processes, options.restart, recipe.first_epoch)
