"""Options that every model has: its data, how it trains and where.

A model's options inherit these, add more, and redeclare those with another help text or default.
Names are those of the published release, so that scripts keep working.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.base.errors import UserError
from utils.base.options import SEEDS, check_options, option

TEXT_FILE = "text.json"  # in the run folder: describes the text encoder, for prediction
# Options of a run that its predictions use, too, unless others are given.
INHERITED = ("task", "fv", "data_root", "cache_dir", "text_encoder", "nms_threshold", "amp")


@dataclass(kw_only=True)
class TrainingOptions:
    """Options of training and prediction that all models share.

    A `free` option may change when a stopped run is continued.
    """

    OPTIONS_FILE: ClassVar[str]  # in the run folder
    LOG_FILE: ClassVar[str | None] = None  # in the run folder: losses as text

    task: str = option(explanation="data set: a folder under <data_root>/dataset")
    fv: str = option(explanation="video feature: a folder under <data_root>/features")
    mode: str = option(
        "train", "train, or predict a split", choices=("train", "val", "test"), usual=True
    )

    # Data
    data_root: str = option("data", "folder with dataset/ and features/", usual=True, free=True)
    cache_dir: str | None = option(None, "derived stores (default: <data_root>/cache)", free=True)
    eval_gt_json: str | None = option(
        None, "annotations to score against, if they hold times", usual=True, local=True
    )
    label_times: str = option(
        "exact",
        "times for labels (ReLER: for choosing queries)",
        choices=("exact", "published"),
        usual=True,
    )
    scaling_subsample_clips: str | None = option(
        None, "keep narrations of the listed clips only", usual=True, local=True
    )
    zeroshot_subsample_clips: str | None = option(
        None, "keep NLQ queries of the listed clips only", usual=True, local=True
    )
    nar_exp_factor: float = option(
        1.0,
        "scale narration windows by up to this (jitter; 1: off)",
        usual=True,
        aliases=("nar_rand_window_expansion_factor",),
        within="[1, 1000]",
    )
    nar_translate: bool = option(
        False,
        "also move scaled narration windows",
        usual=True,
        aliases=("nar_rand_window_translate",),
    )
    feature_device: str = option(
        "auto",
        "where features are kept; auto: on the GPU if they fit",
        choices=("auto", "cpu", "cuda"),
        free=True,
    )

    # Text
    text_encoder: str | None = option(
        None,
        "NAME[@LAYER] or FOLDER[@LAYER] (default: the published one)",
        usual=True,
        local=True,
    )
    text_features: str = option(
        "cached", "encode once, or in the loop", choices=("cached", "live"), usual=True
    )

    # Training
    epochs: int = option(100, "passes over the training split", usual=True, within="[1, 1e9]")
    batch_size: int = option(
        32, "queries a step, over all processes together", usual=True, within="[1, 1e9]"
    )
    accumulate: int = option(
        0, "pieces a batch is computed in (0: as few as the GPU's memory allows)"
    )
    clip_norm: float = option(1.0, "largest gradient norm", within="(0, inf)")
    seed: int = option(12345, "seed of every random draw", usual=True, within=SEEDS)
    init_from: str | None = option(
        None,
        "checkpoint file or run folder to begin with, or to predict with",
        usual=True,
        local=True,
    )
    eval_period: int = option(0, "steps between evaluations (0: VSLNet two an epoch, ReLER one)")
    amp: str = option(
        "off",
        "mixed precision; auto: bf16 where it is fast",
        choices=("off", "auto", "bf16", "fp16"),
        usual=True,
    )
    compile: bool = option(False, "compile the model", usual=True)
    save_every_minutes: float = option(10.0, "time between saved states", usual=True, free=True)
    profile: int = option(0, "write a trace of so many steps into the run folder", free=True)
    restart: bool = option(
        False, "start over instead of continuing the run in the folder", usual=True, free=True
    )
    tb_log_freq: int = option(10, "steps between logged losses", within="[1, 1e9]", free=True)

    # Prediction
    nms_threshold: float | None = option(
        None, "suppress predictions overlapping more than this", usual=True, within="(0, 1]"
    )
    allow_missing: bool = option(False, "predict without the clips that lack features")
    output: str | None = option(
        None, "file of predictions (default: beside the checkpoint)", free=True
    )
    check_submission: bool = option(
        False, "check predictions of the test split as the challenge server would", free=True
    )

    # Clusters
    slurm: bool = option(
        False, "submit the training to SLURM instead of running it here", usual=True, free=True
    )
    slurm_partition: str | None = option(None, "where (default: the cluster's own)", free=True)
    slurm_constraint: str | None = option(None, "features the machines must have", free=True)
    slurm_nodes: int = option(1, "machines", within="[1, 1e9]", free=True)
    slurm_gpus: int = option(1, "GPUs a machine, one process each", free=True)
    slurm_cpus: int = option(10, "cores a process", within="[1, 1e9]", free=True)
    slurm_minutes: int = option(
        720,
        "longest time a start; requeued and continued when it is up",
        aliases=("slurm_timeout_min",),
        within="[1, 1e9]",
        free=True,
    )

    def __post_init__(self) -> None:
        if self.nar_exp_factor == -1:  # as published scripts turn it off
            self.nar_exp_factor = 1.0
        check_options(self)
        self.check_names("task", "fv")

    def check_names(self, *names: str) -> None:
        """Raise UserError if the value of one of these options is a path, not a name."""
        for name in names:
            if Path(getattr(self, name)).name != getattr(self, name):
                raise UserError(f"--{name} must be a plain name, is '{getattr(self, name)}'")

    @property
    def is_submission(self) -> bool:
        """Whether predictions must answer the whole test split of `eval_gt_json`."""
        checked = self.check_submission and self.mode == "test"
        return checked and not self.allow_missing and self.eval_gt_json is not None

    def subsets(self, split: str) -> tuple[str | None, str | None]:
        """The clip lists that narrations and NLQ queries of a split are reduced to, or None."""
        if self.mode == "train" == split:
            return self.scaling_subsample_clips, self.zeroshot_subsample_clips
        return None, None

    @property
    def cache(self) -> Path:
        """Where derived stores are kept."""
        return Path(self.cache_dir) if self.cache_dir else Path(self.data_root) / "cache"

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the video features that the model reads."""
        return (self.fv,)

    @property
    def run_folder(self) -> Path:
        """Folder of checkpoints, scores and the saved state."""
        raise NotImplementedError

    @property
    def log_dir(self) -> Path | None:
        """Folder of TensorBoard logs, None to write none."""
        raise NotImplementedError
