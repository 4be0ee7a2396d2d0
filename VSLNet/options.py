"""VSLNet's options. Names are those of the published release, so that scripts keep working."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import read_json
from utils.options import option
from utils.resident import PLACES
from utils.slurm import Cluster

OPTIONS_FILE = "configs.json"  # in the run folder


@dataclass
class Options:
    """Everything that can be chosen on the command line."""

    task: str = option(explanation="data set: a folder under <data_root>/dataset")
    fv: str = option(explanation="video feature: a folder under <data_root>/features")
    mode: str = option("train", "train, or predict a split", choices=("train", "val", "test"))

    # Data
    data_root: str = option("data", "folder with dataset/ and features/")
    cache_dir: str | None = option(None, "derived stores (default: <data_root>/cache)")
    eval_gt_json: str | None = option(None, "annotations to score against, if they hold times")
    video_feature_dim: int | None = option(None, "checked against the features' own width")
    max_pos_len: int = option(128, "units a clip is pooled to")
    extend: float = option(0.1, "highlight the window extended by this share on each side")
    label_times: str = option(
        "exact", "label windows by exact or truncated times", choices=("exact", "published")
    )
    remove_empty_queries_from: list[str] = option(
        (), "splits to drop windows of at most 1/30 s from", choices=("train", "val"), many=True
    )
    scaling_subsample_clips: str | None = option(None, "keep narrations of the listed clips only")
    zeroshot_subsample_clips: str | None = option(None, "keep NLQ queries of the listed clips only")
    nar_exp_factor: float = option(1.0, "scale narration windows by up to this (jitter; 1: off)")
    nar_translate: bool = option(False, "also move scaled narration windows")
    allow_missing: bool = option(False, "predict without the clips that have no features")

    # Text
    text_encoder: str | None = option(None, "name or folder (default: bert-base-uncased)")
    feature_device: str = option(
        "auto", "where features wait: on the GPU if they fit, or not", choices=PLACES
    )
    text_features: str = option(
        "cached", "encode once, or in the loop with dropout", choices=("cached", "live")
    )
    word_dim: int = option(300, "width of the word vectors (predictor rnn)")
    char_dim: int = option(50, "width of the character vectors (predictor rnn)")

    # Model
    predictor: str = option(
        "bert", "transformer over text-encoder tokens, or LSTM over GloVe", choices=("bert", "rnn")
    )
    dim: int = option(128, "hidden width")
    num_heads: int = option(8, "attention heads")
    drop_rate: float = option(0.2, "dropout")
    highlight_lambda: float = option(5.0, "weight of the highlight loss")
    num_extra_attn_blocks: int = option(0, "additional attention blocks (ablation)")
    text_agnostic: bool = option(False, "random text encoder (ablation)")
    video_agnostic: bool = option(False, "random video features (ablation)")

    # Training
    epochs: int = option(100, "passes over the training split")
    batch_size: int = option(32, "queries a step, over all processes together")
    init_lr: float = option(0.0005, "highest learning rate")
    warmup_proportion: float = option(0.0, "share of the steps spent warming up")
    clip_norm: float = option(1.0, "largest gradient norm")
    seed: int = option(12345, "seed of every random draw")
    init_from: str | None = option(None, "checkpoint file or run folder to start from")
    amp: str = option("off", "mixed precision", choices=("off", "bf16", "fp16"))
    compile: bool = option(False, "compile the model")
    eval_period: int = option(0, "steps between evaluations (0: twice an epoch and at its end)")
    save_every_minutes: float = option(10.0, "time between saved states")
    skip_nonfinite: int = option(0, "steps with a loss or gradient of NaN to leave out, not stop")
    profile: int = option(0, "write a trace of so many steps into the run folder")
    restart: bool = option(False, "begin anew instead of continuing the run in the folder")

    # Runs
    model_dir: str = option("checkpoints", "run folders are made here")
    model_name: str = option("vslnet", "first part of the run folder and of its files")
    suffix: str | None = option(None, "last part of the run folder")
    log_to_tensorboard: str | None = option(None, "name of the TensorBoard log")
    tb_log_dir: str = option("runs", "folder of TensorBoard logs")
    tb_log_freq: int = option(10, "steps between logged losses")
    save_text_encoder: bool = option(False, "include the frozen text encoder in checkpoints")
    nms_threshold: float | None = option(None, "suppress predictions overlapping more than this")

    # Clusters
    slurm: bool = option(False, "submit the training to SLURM instead of running it here")
    slurm_partition: str | None = option(None, "where (default: the cluster's own)")
    slurm_nodes: int = option(1, "machines")
    slurm_gpus: int = option(1, "GPUs a machine, one process each")
    slurm_minutes: int = option(1440, "longest time a start; requeued and continued when it is up")

    # Of the published release, without meaning here
    num_workers: int = option(0, "accepted, no effect: data loading needs no processes")
    save_dir: str | None = option(None, "accepted, no effect: stores are under cache_dir")
    gpu_idx: str | None = option(None, "accepted, no effect: set CUDA_VISIBLE_DEVICES")

    def __post_init__(self) -> None:
        if self.skip_nonfinite < 0:
            raise UserError(f"--skip_nonfinite must be at least 0, is {self.skip_nonfinite}")
        Cluster.of(self)  # refuses what is none
        for name in ("max_pos_len", "dim", "num_heads", "epochs", "batch_size", "tb_log_freq"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, is {getattr(self, name)}")
        if self.dim % self.num_heads:
            raise UserError(f"--dim {self.dim} must be a multiple of --num_heads {self.num_heads}")
        if self.nar_exp_factor < 1:
            raise UserError(f"--nar_exp_factor must be at least 1, is {self.nar_exp_factor}")
        if self.init_lr <= 0:
            raise UserError(f"--init_lr must be positive, is {self.init_lr}")
        for name in ("drop_rate", "warmup_proportion"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} must be in [0, 1), is {getattr(self, name)}")
        if self.nms_threshold is not None and not 0 < self.nms_threshold <= 1:
            raise UserError(f"--nms_threshold must be in (0, 1], is {self.nms_threshold}")
        for name in ("task", "fv", "model_name"):
            if Path(getattr(self, name)).name != getattr(self, name):
                raise UserError(f"--{name} must be a plain name, is '{getattr(self, name)}'")

    @property
    def run_folder(self) -> Path:
        """Where checkpoints and scores of this run lie, as published."""
        parts = [self.model_name, self.task, self.fv, str(self.max_pos_len), self.predictor]
        if self.suffix is not None:
            parts.append(self.suffix)
        return Path(self.model_dir) / "_".join(parts) / "model"

    @property
    def cache(self) -> Path:
        """Where derived stores are kept."""
        return Path(self.cache_dir) if self.cache_dir else Path(self.data_root) / "cache"


ARCHITECTURE = ("dim", "num_heads", "num_extra_attn_blocks", "word_dim", "char_dim")


def adopt_architecture(options: Options) -> Options:
    """The options with the model's shape as the run folder says it was trained."""
    file = options.run_folder / OPTIONS_FILE
    trained = read_json(file) if file.is_file() else {}
    shape = {name: trained[name] for name in ARCHITECTURE if name in trained}
    return dataclasses.replace(options, **shape)


# Options that may differ between the parts of a run that was stopped and continued.
FREE_OPTIONS = (
    "save_every_minutes",
    "skip_nonfinite",
    "restart",
    "profile",
    "slurm",
    "slurm_partition",
    "slurm_nodes",
    "slurm_gpus",
    "slurm_minutes",
    "log_to_tensorboard",
    "tb_log_dir",
    "tb_log_freq",
    "num_workers",
    "feature_device",
    "save_dir",
    "gpu_idx",
    "cache_dir",
    "data_root",
    "model_dir",
)
