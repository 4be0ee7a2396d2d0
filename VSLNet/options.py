"""VSLNet's options. Names are those of the published release, so that scripts keep working."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from utils.base.errors import UserError
from utils.base.files import read_json
from utils.base.options import SEEDS, Ignored, adopt, option
from utils.training.checkpoints import find_checkpoint
from utils.training.options import FREE, TrainingOptions

OPTIONS_FILE = "configs.json"  # in the run folder
PADDINGS = ("masked", "published")
NEW_PADDING = "masked"  # of a run that begins with no checkpoint


@dataclass(kw_only=True)
class Options(TrainingOptions):
    """Everything that can be chosen on the command line."""

    # Data
    video_feature_dim: int | None = option(
        None, "checked against the features' own width", within="[1, 1e9]"
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
    text_encoder: str | None = option(
        None, "name or folder (default: bert-base-uncased)", usual=True
    )
    text_features: str = option(
        "cached", "encode once, or in the loop with dropout", choices=("cached", "live"), usual=True
    )
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
    epochs: int = option(100, "passes over the training split", usual=True, within="[1, 1e9]")
    batch_size: int = option(
        32, "queries a step, over all processes together", usual=True, within="[1, 1e9]"
    )
    eval_batch_size: int | None = option(
        None,
        "queries predicted together, which matters if padding is published (default: batch_size)",
        within="[1, 1e9]",
    )
    init_lr: float = option(0.0001, "highest learning rate", usual=True, within="(0, inf)")
    warmup_proportion: float = option(
        0.0, "share of the steps spent warming up", usual=True, within="[0, 1)"
    )
    clip_norm: float = option(1.0, "largest gradient norm", within="(0, inf)")
    seed: int = option(12345, "seed of every random draw", usual=True, within=SEEDS)
    init_from: str | None = option(
        None,
        "checkpoint file or run folder to begin with",
        usual=True,
        aliases=("pretrained_model_path",),
    )
    eval_period: int = option(
        0, "steps between evaluations (0: half-way through an epoch and at its end)"
    )

    # Runs
    model_dir: str = option("checkpoints", "run folders are made here", usual=True)
    model_name: str = option("vslnet", "first part of the run folder and of its files")
    suffix: str | None = option(None, "last part of the run folder")
    log_to_tensorboard: str | None = option(None, "name of the TensorBoard log")
    tb_log_dir: str = option("./runs", "folder of TensorBoard logs")
    save_text_encoder: bool = option(False, "include the frozen text encoder in checkpoints")

    def __post_init__(self) -> None:
        if self.eval_batch_size == -1:  # as published scripts leave it out
            self.eval_batch_size = None
        super().__post_init__()
        if self.dim % self.num_heads:
            raise UserError(f"--dim {self.dim} must be a multiple of --num_heads {self.num_heads}")
        if self.compile and self.padding == "published":
            raise UserError(
                "--compile pads batches to few lengths, which changes what is computed with "
                "--padding published; use --padding masked"
            )
        self.refuse_paths("model_name")

    @property
    def run_folder(self) -> Path:
        """Where checkpoints and scores of this run lie, as published.

        To predict, that is where the checkpoint lies which is named, if one is.
        """
        if self.mode != "train" and self.init_from is not None:
            return find_checkpoint(self.init_from).parent
        parts = [self.model_name, self.task, self.fv, str(self.max_pos_len), self.predictor]
        if self.suffix is not None:
            parts.append(self.suffix)
        return Path(self.model_dir) / "_".join(parts) / "model"


ARCHITECTURE = ("dim", "num_heads", "num_extra_attn_blocks", "word_dim", "char_dim")


def adopt_architecture(options: Options) -> Options:
    """The options with the model's shape as the run folder says it was trained."""
    file = options.run_folder / OPTIONS_FILE
    trained = read_json(file) if file.is_file() else {}
    shape = {name: trained[name] for name in ARCHITECTURE if name in trained}
    return adopt(options, shape, file)


def adopt_padding(options: Options) -> Options:
    """The options with the padding chosen: as asked for, or as the weights were trained with.

    That stands in the options of the run which is continued or predicted with, else in those beside
    the checkpoint that a new run begins with. A checkpoint whose run does not say was trained as
    published.
    """
    if options.padding is not None:
        return options
    file = options.run_folder / OPTIONS_FILE
    continues = file.is_file() and not options.restart
    if options.mode == "train" and not continues:
        if options.init_from is None:
            return dataclasses.replace(options, padding=NEW_PADDING)
        file = find_checkpoint(options.init_from).parent / OPTIONS_FILE
    trained = read_json(file) if file.is_file() else {}
    return adopt(options, {"padding": trained.get("padding") or "published"}, file)


# Options that may differ between the parts of a run that was stopped and continued.
FREE_OPTIONS = (
    *FREE,
    "log_to_tensorboard",
    "tb_log_dir",
    "model_dir",
)

# Options of the published release that nothing here depends on.
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
