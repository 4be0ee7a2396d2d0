"""Options that every model has: its data, how it trains and where.

A model's own options inherit these, add theirs and redeclare a field whose words differ. Names are
those of the published release, so that scripts keep working.
"""

from dataclasses import dataclass
from pathlib import Path

from utils.base.errors import UserError
from utils.base.options import check_options, option

# May differ between the parts of a run that was stopped and continued.
FREE = (
    "save_every_minutes",
    "restart",
    "profile",
    "slurm",
    "slurm_partition",
    "slurm_constraint",
    "slurm_nodes",
    "slurm_gpus",
    "slurm_cpus",
    "slurm_minutes",
    "tb_log_freq",
    "feature_device",
    "cache_dir",
    "data_root",
    "output",
    "check_submission",
)


PLACES = ("auto", "cpu", "cuda")


@dataclass(kw_only=True)
class TrainingOptions:
    """What can be chosen for every model, in training and prediction."""

    task: str = option(explanation="data set: a folder under <data_root>/dataset")
    fv: str = option(explanation="video feature: a folder under <data_root>/features")
    mode: str = option(
        "train", "train, or predict a split", choices=("train", "val", "test"), usual=True
    )

    # Data
    data_root: str = option("data", "folder with dataset/ and features/", usual=True)
    cache_dir: str | None = option(None, "derived stores (default: <data_root>/cache)")
    eval_gt_json: str | None = option(
        None, "annotations to score against, if they hold times", usual=True
    )
    label_times: str = option(
        "exact",
        "times for labels (ReLER: for choosing queries)",
        choices=("exact", "published"),
        usual=True,
    )
    scaling_subsample_clips: str | None = option(
        None, "keep narrations of the listed clips only", usual=True
    )
    zeroshot_subsample_clips: str | None = option(
        None, "keep NLQ queries of the listed clips only", usual=True
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
    allow_missing: bool = option(False, "predict without the clips that lack features")
    output: str | None = option(None, "file of predictions (default: beside the checkpoint)")
    check_submission: bool = option(
        False, "check predictions of the test split as the challenge server would"
    )
    feature_device: str = option(
        "auto", "where features wait: on the GPU if they fit, or not", choices=PLACES
    )

    # Training
    amp: str = option("off", "mixed precision", choices=("off", "bf16", "fp16"), usual=True)
    compile: bool = option(False, "compile the model", usual=True)
    save_every_minutes: float = option(10.0, "time between saved states", usual=True)
    profile: int = option(0, "write a trace of so many steps into the run folder")
    restart: bool = option(
        False, "begin anew instead of continuing the run in the folder", usual=True
    )
    tb_log_freq: int = option(10, "steps between logged losses", within="[1, 1e9]")
    nms_threshold: float | None = option(
        None, "suppress predictions overlapping more than this", usual=True, within="(0, 1]"
    )

    # Clusters
    slurm: bool = option(
        False, "submit the training to SLURM instead of running it here", usual=True
    )
    slurm_partition: str | None = option(None, "where (default: the cluster's own)")
    slurm_constraint: str | None = option(None, "features the machines must have")
    slurm_nodes: int = option(1, "machines", within="[1, 1e9]")
    slurm_gpus: int = option(1, "GPUs a machine, one process each")
    slurm_cpus: int = option(10, "cores a process", within="[1, 1e9]")
    slurm_minutes: int = option(
        720,
        "longest time a start; requeued and continued when it is up",
        aliases=("slurm_timeout_min",),
        within="[1, 1e9]",
    )

    def __post_init__(self) -> None:
        if self.nar_exp_factor == -1:  # as published scripts turn it off
            self.nar_exp_factor = 1.0
        check_options(self)
        self.refuse_paths("task", "fv")

    def refuse_paths(self, *names: str) -> None:
        """A `UserError` if one of the options is no plain name of a file or folder."""
        for name in names:
            if Path(getattr(self, name)).name != getattr(self, name):
                raise UserError(f"--{name} must be a plain name, is '{getattr(self, name)}'")

    @property
    def is_submission(self) -> bool:
        """Whether predictions are to answer the whole test split of `eval_gt_json`."""
        wanted = self.check_submission and self.mode == "test"
        return wanted and not self.allow_missing and self.eval_gt_json is not None

    @property
    def cache(self) -> Path:
        """Where derived stores are kept."""
        return Path(self.cache_dir) if self.cache_dir else Path(self.data_root) / "cache"
