"""GroundNLQ's options."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.base.errors import UserError
from utils.base.options import SEEDS, option
from utils.base.tasks import STRIDE
from utils.training.options import TrainingOptions

# What the published code does otherwise, by the names that --published takes.
QUIRKS = ("half_row", "frames_per_row", "text_padding", "fixed_length", "no_nearest")
PUBLISHED_FRAMES = 16.043  # a row, "1.87 rows a second"


@dataclass(kw_only=True)
class Options(TrainingOptions):
    """Everything that can be chosen on the command line."""

    OPTIONS_FILE: ClassVar[str] = "options.json"

    # Data
    fv: str = option(explanation="video feature, or several side by side: internvideo+clip")
    published: str | None = option(
        None,
        f"as published: all, none, or some of {','.join(QUIRKS)} (default: as trained; new: none)",
        usual=True,
    )
    frames_per_row: float | None = option(
        None, f"frames a feature row (default: as trained; new: {STRIDE})", within="[1, 1000]"
    )
    max_seq_len: int = option(2560, "rows of every clip, with --published fixed_length")
    nar_jitter: str = option(
        "whole",
        "scale narration windows by whole numbers, or by any as the other models do",
        choices=("whole", "any"),
    )
    crop_ratio: list[float] = option(
        (1.0, 1.0),
        "train on a random stretch of a clip, between such shares of it (published: all)",
        within="(0, 1]",
    )
    absent: float = option(
        0.0,
        "share of training queries that see a clip without their moment, to search long videos",
        within="[0, 1)",
    )

    # Text
    text_features: str = option(
        "cached",
        "encode once (cached), in the loop (live), or a FILE (.npz, LMDB) of <annotation>_<number>",
        usual=True,
        local=True,
    )

    # Model
    dim: int = option(384, "hidden width", within="[1, 8192]")
    num_heads: int = option(4, "attention heads", within="[1, 8192]")
    window: int = option(9, "rows that a row attends to", within="[1, 1000]")
    arch: list[int] = option(
        (2, 4, 4, 0, 6),
        "layers: embedding, text, video, pyramid with and without cross-attention",
        within="[0, 20]",
    )
    drop_path: float = option(0.1, "probability that a residual is dropped", within="[0, 1)")

    # Training
    epochs: int = option(
        10, "passes over the training split, warm-up included", usual=True, within="[1, 1e9]"
    )
    batch_size: int = option(
        16, "queries a step, over all processes together", usual=True, within="[1, 1e9]"
    )
    lr: float = option(2e-4, "highest learning rate", usual=True, within="(0, inf)")
    warmup_epochs: float = option(4.0, "epochs of rising learning rate")
    optimizer: str = option(
        "adamw",
        "as published, or muon for matrices, which learns rare words sooner",
        choices=("adamw", "muon"),
    )
    weight_decay: float = option(0.05, "weight decay of convolutions")
    seed: int = option(12345678, "seed of every random draw", usual=True, within=SEEDS)
    new_heads: bool = option(
        False, "begin with the checkpoint's weights but for the heads, as published"
    )
    use_average: bool = option(False, "evaluate or predict with the weights' running average")
    eval_batch_size: int = option(16, "queries predicted together", within="[1, 1e9]")

    # Runs
    results_root: str = option("results", "run folders are made here", usual=True, free=True)
    exp_id: str | None = option(None, "names the run folder groundnlq-<exp_id> (default: task_fv)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.num_heads:
            raise UserError(f"--dim {self.dim} must be a multiple of --num_heads {self.num_heads}")
        if len(self.arch) != 5 or min(self.arch[:3]) < 1:
            raise UserError("--arch must be five numbers, the first three of them 1 or more")
        if len(self.crop_ratio) != 2 or self.crop_ratio[0] > self.crop_ratio[1]:
            raise UserError("--crop_ratio must be two numbers, the second not the smaller one")
        if len(set(self.features)) < len(self.features) or not all(self.features):
            raise UserError(f"--fv {self.fv}: must be different names joined by +")
        if self.quirks - {*QUIRKS}:
            names = ",".join(QUIRKS)
            raise UserError(f"--published {self.published}: must be all, none or some of {names}")
        if self.compile and "text_padding" in self.quirks:
            raise UserError("--compile pads queries, --published text_padding lets that matter")
        if self.max_seq_len % 2 ** (self.levels - 1) and "fixed_length" in self.quirks:
            raise UserError(f"--max_seq_len must be a multiple of {2 ** (self.levels - 1)}")

    @property
    def quirks(self) -> frozenset[str]:
        """What is done as published."""
        if self.published in (None, "none"):
            return frozenset()
        return frozenset(QUIRKS if self.published == "all" else self.published.split(","))

    @property
    def row_frames(self) -> float:
        """Frames a feature row."""
        if "frames_per_row" in self.quirks:
            return PUBLISHED_FRAMES
        return self.frames_per_row or float(STRIDE)

    @property
    def levels(self) -> int:
        """Of the pyramid."""
        return 1 + self.arch[3] + self.arch[4]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the video features that the model reads."""
        return tuple(self.fv.split("+"))

    @property
    def run_folder(self) -> Path:
        """Where checkpoints, scores and the state of a training lie."""
        return Path(self.results_root) / f"groundnlq-{self.exp_id or f'{self.task}_{self.fv}'}"

    @property
    def log_dir(self) -> Path:
        """Where TensorBoard logs go."""
        return self.run_folder / "tensorboard_log"
