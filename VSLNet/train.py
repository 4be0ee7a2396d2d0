"""VSLNet's training: what is particular to it; the loop itself is utils/training/loop.py.

On a laptop:    VSLNet/scripts/train_scratch_nlq.sh cpu nlq egovlp runs/scratch 0.001
On four GPUs:   VSLNet/scripts/train_naq.sh 0,1,2,3 nlq egovlp runs/naq 2.5
On two nodes:   torchrun --nnodes 2 --nproc_per_node 4 ... VSLNet/main.py --task ... (on each)
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import nn

from utils.base.errors import UserError
from utils.evaluation.predictions import write_results
from utils.evaluation.scoring import ground_truth, report, score
from utils.training.checkpoints import find_checkpoint
from utils.training.loop import EpochPlan, Evaluation, Schedule, fit
from utils.training.processes import Processes, start_processes
from utils.training.runs import Run, input_files
from utils.training.slurm import Cluster, submit
from utils.training.timelines import examples
from VSLNet.data import open_split
from VSLNet.infer import predict
from VSLNet.model import VSLNet, losses, parameter_groups
from VSLNet.options import FREE_OPTIONS, OPTIONS_FILE, Options, adopt_padding
from VSLNet.text import TEXT_FILE, open_text
from VSLNet.weights import build_model, checkpoint_state, load_weights


def linear_schedule(step: int, steps: int, peak: float, warmup: float) -> float:
    """Learning rate that rises linearly over `warmup * steps`, then falls linearly to 0."""
    rising = warmup * steps
    if step < rising:
        return peak * step / max(1.0, rising)
    return peak * (steps - step) / max(1.0, steps - rising)


class Recipe:
    """Model, optimizer, losses and evaluation of one training, see `utils.training.loop.Recipe`."""

    def __init__(self, options: Options, processes: Processes, schedule: Schedule):
        self.options = options
        self.processes = processes
        self.text = open_text(options)
        self.train = open_split(options, "train", self.text, processes.device, tolerant=True)
        self.val = open_split(options, "val", self.text, processes.device, tolerant=True)
        self.truth = ground_truth(self.val.records, self.val.listed, options.eval_gt_json)
        if self.truth is None:
            raise UserError(
                f"{options.eval_gt_json or 'val.json'}: holds no times, and training needs a split "
                "with times to choose checkpoints by; give --eval_gt_json"
            )
        self.rows = len(self.train.records)
        self.steps = schedule.epochs * schedule.steps_per_epoch(self.rows, processes.size)
        self.model: VSLNet = build_model(options, self.train.features.width, self.text)
        if options.init_from is not None:
            load_weights(self.model, find_checkpoint(options.init_from))
        self.model.to(processes.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model), lr=options.init_lr, eps=1e-6, fused=True
        )

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to 0 over all steps."""
        options = self.options
        return linear_schedule(step, self.steps, options.init_lr, options.warmup_proportion)

    def losses(
        self, network: nn.Module, rows: np.ndarray, plan: EpochPlan, step: int
    ) -> dict[str, torch.Tensor]:
        """Span and highlight losses of this process's share of the rows."""
        batch = self.train.batch(rows, plan.draws, self.options, self.processes)
        out = network(batch.video, batch.video_mask, *batch.text)
        return losses(
            out,
            batch.start,
            batch.end,
            batch.highlight,
            batch.video_mask,
            self.options.highlight_lambda,
            batch.units_total,
        )._asdict()

    def evaluate(self, epoch: int, step: int) -> Evaluation:
        """Predict and score the validation split; its predictions are kept beside the scores."""
        windows, scores = predict(self.model, self.val, self.options, self.processes)
        if self.processes.main:
            name = f"{self.options.model_name}_{epoch}_{step}_preds.json"
            write_results(self.options.run_folder / name, self.val.records.keys, windows, scores)
        scored = score(self.truth, windows)
        figures = scored.percentages()
        table = report(scored, f"Epoch {epoch}, Step {step}")
        records = self.val.records
        queries = [records.sentences[number] for number in records.sentence]
        shown = examples(queries, records.duration, self.truth.seconds, windows)
        return Evaluation(figures["R@1 IoU=0.3"], figures, table, shown)

    def clips(self, rows: np.ndarray) -> list[str]:
        """The clips of training queries."""
        records = self.train.records
        return [records.clip_uids[clip] for clip in records.clip[rows]]

    def checkpoint(self, epoch: int, step: int) -> tuple[str, dict]:
        """A plain state dict in the published layout."""
        name = f"{self.options.model_name}_{step}.t7"
        return name, checkpoint_state(self.model, self.text, self.options.save_text_encoder)


def train(options: Options) -> None:
    """Train, or continue training, the run that the options name; on SLURM if they say so."""
    options = adopt_padding(options)
    if options.slurm:
        here = dataclasses.replace(options, slurm=False)
        submit(train, here, options.run_folder / "slurm", Cluster.of(options))
        return
    schedule = Schedule(
        epochs=options.epochs,
        batch_size=options.batch_size,
        clip_norm=options.clip_norm,
        seed=options.seed,
        evaluations=2,
        eval_period=options.eval_period,
        amp=options.amp,
        compile=options.compile,
        log_every=options.tb_log_freq,
        save_every_minutes=options.save_every_minutes,
        profile=options.profile,
    )
    with start_processes() as processes:
        recipe = Recipe(options, processes, schedule)
        log_dir = None
        if options.log_to_tensorboard is not None:
            log_dir = Path(options.tb_log_dir) / options.log_to_tensorboard
        run = Run(
            options.run_folder,
            options,
            OPTIONS_FILE,
            processes,
            FREE_OPTIONS,
            log_dir,
            inputs=input_files(options, options.fv, start=options.init_from),
            descriptions={TEXT_FILE: recipe.text.describe()},
        )
        if processes.main:
            parameters = sum(p.numel() for p in recipe.model.parameters() if p.requires_grad)
            print(
                f"training on {recipe.rows} of {recipe.train.listed} queries, validating on "
                f"{len(recipe.val.records)} of {recipe.val.listed}; {parameters:,} parameters; "
                f"run folder {options.run_folder}"
            )
        fit(recipe, schedule, run, processes, options.restart)
