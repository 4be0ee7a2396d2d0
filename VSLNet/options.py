"""VSLNet's options. Names are those of the published release, so that scripts keep working."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.base.errors import UserError
from utils.base.options import Ignored, option
from utils.training.options import TrainingOptions

PADDINGS = ("masked", "published")
NEW_PADDING = "masked"  # of a run without `init_from`
# The model's shape, besides the widths of its inputs: prediction uses that of the trained run.
SHAPE = ("dim", "num_heads", "num_extra_attn_blocks", "word_dim", "char_dim")


@dataclass(kw_only=True)
class Options(TrainingOptions):
    """Everything that can be chosen on the command line."""

    OPTIONS_FILE: ClassVar[str] = "configs.json"

    # Data
    video_feature_dim: int | None = option(
        None, "checked against the width of the features", within="[1, 1e9]"
    )
    max_pos_len: int = option(128, "units a clip is pooled to", usual=True, within="[1, 10000]")
    extend: float = option(
        0.1, "highlight the window extended by this share on each side", within="[0, 1000]"
    )
    remove_empty_queries_from: list[str] = option(
        (),
        "splits to drop windows of at most 1/30 s from",
        choices=("train", "val"),
        usual=True,
    )

    # Text
    word_dim: int = option(300, "width of the word vectors (predictor rnn)", within="[1, 8192]")
    char_dim: int = option(50, "width of the character vectors (predictor rnn)", within="[1, 8192]")

    # Model
    predictor: str = option(
        "bert",
        "transformer over text tokens, or LSTM over GloVe",
        choices=("bert", "rnn"),
        usual=True,
    )
    dim: int = option(128, "hidden width", within="[1, 8192]")
    num_heads: int = option(8, "attention heads", within="[1, 8192]")
    drop_rate: float = option(0.2, "dropout", within="[0, 1)")
    highlight_lambda: float = option(5.0, "weight of the highlight loss")
    num_extra_attn_blocks: int = option(
        0, "additional attention blocks (ablation)", within="[0, 100]"
    )
    text_agnostic: bool = option(False, "random text encoder (ablation)")
    video_agnostic: bool = option(False, "random video features (ablation)")

    padding: str | None = option(
        None,
        f"hide it from convolutions (default: as trained; new: {NEW_PADDING})",
        choices=PADDINGS,
        usual=True,
    )

    # Training
    eval_batch_size: int | None = option(
        None,
        "queries predicted together, which matters if padding is published (default: batch_size)",
        within="[1, 1e9]",
    )
    init_lr: float = option(0.0001, "highest learning rate", usual=True, within="(0, inf)")
    warmup_proportion: float = option(
        0.0, "share of the steps spent warming up", usual=True, within="[0, 1)"
    )
    init_from: str | None = option(
        None,
        "checkpoint file or run folder to begin with, or to predict with",
        usual=True,
        aliases=("pretrained_model_path",),
    )

    # Runs
    model_dir: str = option("checkpoints", "run folders are made here", usual=True, free=True)
    model_name: str = option("vslnet", "first part of the run folder and of its files")
    suffix: str | None = option(None, "last part of the run folder")
    log_to_tensorboard: str | None = option(None, "name of the TensorBoard log", free=True)
    tb_log_dir: str = option("./runs", "folder of TensorBoard logs", free=True)
    save_text_encoder: bool = option(False, "include the frozen text encoder in checkpoints")

    def __post_init__(self) -> None:
        if self.eval_batch_size == -1:  # published scripts' default
            self.eval_batch_size = None
        super().__post_init__()
        if self.dim % self.num_heads:
            raise UserError(f"--dim {self.dim} must be a multiple of --num_heads {self.num_heads}")
        if self.compile and self.padding == "published":
            raise UserError(
                "--compile pads batches to few lengths, which changes predictions with --padding "
                "published; use --padding masked"
            )
        self.check_names("model_name")

    @property
    def run_folder(self) -> Path:
        """Folder of checkpoints, scores and the saved state, named as published."""
        parts = [self.model_name, self.task, self.fv, str(self.max_pos_len), self.predictor]
        if self.suffix is not None:
            parts.append(self.suffix)
        return Path(self.model_dir) / "_".join(parts) / "model"

    @property
    def log_dir(self) -> Path | None:
        """Folder of TensorBoard logs, None to write none."""
        if self.log_to_tensorboard is None:
            return None
        return Path(self.tb_log_dir) / self.log_to_tensorboard


# Options of the published release that have no effect here.
IGNORED = (
    Ignored("num_workers", int, "data loading needs no processes"),
    Ignored("data_loader_workers", int, "data loading needs no processes"),
    Ignored("save_dir", str, "stores are under --cache_dir"),
    Ignored("gpu_idx", str, "set CUDA_VISIBLE_DEVICES"),
    Ignored("word_size", int, "counted from the vocabulary"),
    Ignored("char_size", int, "counted from the vocabulary"),
    Ignored("num_train_steps", int, "counted from --epochs"),
    Ignored("period", int, "a progress bar shows the loss"),
    Ignored("slurm_wait", bool, "the job's log is in the run folder"),
    Ignored("slurm_log_folder", str, "the job's log is in the run folder"),
)
