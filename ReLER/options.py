"""ReLER's options, named as in the published release."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.base.errors import UserError
from utils.base.options import SEEDS, Ignored, option
from utils.training.options import TrainingOptions

SCALES = (2, 3, 4, 5, 6)  # numbers of parts: a random one per batch in training, all in inference


@dataclass(kw_only=True)
class ModelOptions:
    """The model's shape, besides the widths of its inputs."""

    max_v_l: int = option(600, "units a clip is pooled to", usual=True, within="[1, 10000]")
    hidden_dim: int = option(256, "hidden width", within="[1, 8192]")
    n_input_proj: int = option(2, "layers of the input projections", within="[1, 100]")
    input_dropout: float = option(0.5, "dropout of the input projections", within="[0, 1)")
    num_cross_encoder_layers: int = option(3, "cross-modal layers", within="[0, 100]")
    bi_num_attention_heads: int = option(8, "heads of the cross-modal layers", within="[1, 8192]")
    v_intermediate_size: int = option(1024, "feed-forward width, video", within="[1, 8192]")
    intermediate_size: int = option(1024, "feed-forward width, text", within="[1, 8192]")
    cross_input_dropout: float = option(
        0.1, "dropout before the cross-modal layers", within="[0, 1)"
    )
    v_attention_probs_dropout_prob: float = option(
        0.1, "dropout of attention to video units", within="[0, 1)"
    )
    attention_probs_dropout_prob: float = option(
        0.1, "dropout of attention to tokens", within="[0, 1)"
    )
    v_hidden_dropout_prob: float = option(
        0.1, "dropout of the cross-modal layers, video", within="[0, 1)"
    )
    hidden_dropout_prob: float = option(
        0.1, "dropout of the cross-modal layers, text", within="[0, 1)"
    )
    pre_norm: bool = option(False, "norms before the sublayers, not after")
    contrastive_hdim: int = option(64, "width of the contrastive projections", within="[1, 8192]")
    conditioned_span_pred_num_heads: int = option(
        8, "heads of the span predictor", within="[1, 8192]"
    )
    conditioned_span_pred_drop_rate: float = option(
        0.2, "dropout of the span predictor", within="[0, 1)"
    )


@dataclass(kw_only=True)
class LossOptions:
    """Weights and constants of the losses."""

    lw_start_end: float = option(1.0, "weight of the start and end loss")
    lw_highlight: float = option(20.0, "weight of the highlight loss")
    lw_saliency: float = option(1.0, "weight of the saliency loss")
    lw_npm: float = option(1.0, "weight of the part loss")
    video_frame_contrastive_loss_coef: float = option(1.0, "weight of the contrastive loss")
    saliency_margin: float = option(0.2, "margin of the saliency loss")
    temperature: float = option(0.07, "temperature of the contrastive loss", within="(0, inf)")


@dataclass(kw_only=True)
class Options(LossOptions, ModelOptions, TrainingOptions):
    """Everything that can be chosen on the command line."""

    OPTIONS_FILE: ClassVar[str] = "opt.json"
    LOG_FILE: ClassVar[str | None] = "train.log.txt"

    task: str = option(
        explanation="data set: a folder under <data_root>/dataset", aliases=("vsldataset_task",)
    )
    fv: str = option(
        explanation="video feature, besides clip: a folder under <data_root>/features",
        aliases=("vsldataset_fv",),
    )
    data_root: str = option(
        "data",
        "folder with dataset/ and features/",
        usual=True,
        aliases=("vslnet_datapath",),
        free=True,
    )
    eval_gt_json: str | None = option(
        None,
        "annotations to score against, if they hold times",
        usual=True,
        aliases=("testing_gt_json",),
        local=True,
    )
    v_feat_dim: int | None = option(
        None, "checked against the width of features and CLIP together", within="[1, 1e9]"
    )
    t_feat_dim: int | None = option(
        None, "checked against the text encoder's width", within="[1, 1e9]"
    )

    # Data
    no_norm_vfeat: bool = option(False, "features as they are, not scaled to length 1")
    vslnet_thres_in_train: float = option(
        0.0, "train on windows longer than this (seconds)", within="[-1, inf)"
    )

    # Training
    epochs: int = option(
        200,
        "passes over the training split",
        aliases=("n_epoch",),
        usual=True,
        within="[1, 1e9]",
    )
    batch_size: int = option(
        32,
        "queries a step, over all processes together",
        aliases=("bsz",),
        usual=True,
        within="[1, 1e9]",
    )
    eval_bsz: int = option(64, "queries predicted at once", within="[1, 1e9]", free=True)
    lr: float = option(1e-4, "learning rate", usual=True, within="(0, inf)")
    lr_drop: int = option(
        400, "epochs after which the learning rate drops by 10", within="[1, 1e9]"
    )
    wd: float = option(1e-4, "weight decay")
    clip_norm: float = option(
        0.1, "largest gradient norm", aliases=("grad_clip",), within="(0, inf)"
    )
    seed: int = option(2018, "seed of every random draw", usual=True, within=SEEDS)
    init_from: str | None = option(
        None,
        "checkpoint file or run folder to begin with, or to predict with",
        usual=True,
        aliases=("resume",),
        local=True,
    )
    resume_opt: bool = option(False, "take its optimizer too")
    resume_all: bool = option(False, "take its optimizer, scheduler and epoch too", usual=True)

    # Runs
    results_root: str = option("results", "run folders are made here", usual=True, free=True)
    exp_id: str | None = option(
        None, "names the run folder video_tef-<exp_id> (default: task_fv)", usual=True
    )
    split: str | None = option(None, "predict it, as --mode does", choices=("val", "test"))
    eval_results_dir: str | None = option(
        None, "predictions go to its preds/ (default: beside the checkpoint)", free=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for heads in ("bi_num_attention_heads", "conditioned_span_pred_num_heads"):
            if self.hidden_dim % getattr(self, heads):
                raise UserError(f"--hidden_dim {self.hidden_dim} must be a multiple of --{heads}")
        self.mode = self.split or self.mode
        if self.fv == "clip":
            raise UserError("--fv clip: CLIP is always used; name another feature")
        if (self.resume_opt or self.resume_all) and self.init_from is None:
            raise UserError("--resume_opt and --resume_all need --init_from CHECKPOINT")

    @property
    def run_folder(self) -> Path:
        """Folder of checkpoints and scores, named as published."""
        return Path(self.results_root) / f"video_tef-{self.exp_id or f'{self.task}_{self.fv}'}"

    @property
    def log_dir(self) -> Path:
        """Folder of TensorBoard logs."""
        return self.run_folder / "tensorboard_log"

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the video features that the model reads."""
        return (self.fv, "clip")


def _same_width(value: int, options: Options) -> bool:
    return value == options.hidden_dim


def _only(allowed: object) -> Callable[[object, Options], bool]:
    return lambda value, _: value == allowed


# The model's shape in all published scripts; other values are errors.
FIXED_SHAPE = {
    "ctx_mode": "video_tef",
    "position_embedding": "sine",
    "use_txt_pos": False,
    "enc_layers": 0,
    "cross_first": True,
    "cross_text_use_ori": False,
    "NPM_score_norm": 0,
    "conditioned_span_pred_predictor": "bert",
    "hidden_act": "gelu",
    "v_hidden_act": "gelu",
}

# Options of the published release that have no effect here. These are of the model, and values of
# published checkpoints are checked.
IGNORED_OF_MODEL = (
    *(
        Ignored(name, type(value), f"it is {value} in every published script", _only(value))
        for name, value in FIXED_SHAPE.items()
    ),
    Ignored("hidden_size", int, "every width is --hidden_dim", _same_width),
    Ignored("v_hidden_size", int, "every width is --hidden_dim", _same_width),
    Ignored("bi_hidden_size", int, "every width is --hidden_dim", _same_width),
)
IGNORED = (
    *IGNORED_OF_MODEL,
    Ignored("max_q_l", int, "queries are read whole"),
    Ignored("nheads", int, "of self-attention layers, which no published model has"),
    Ignored("dim_feedforward", int, "of self-attention layers, which no published model has"),
    Ignored("dropout", float, "of self-attention layers, which no published model has"),
    Ignored("device", int, "set CUDA_VISIBLE_DEVICES"),
    Ignored("num_workers", int, "data loading needs no processes"),
    Ignored("vsldataset_num_workers", int, "data loading needs no processes"),
    Ignored("no_pin_memory", bool, "memory is pinned where that helps"),
    Ignored("max_es_cnt", int, "no published training stops early"),
    Ignored("eval_untrained", bool, "an untrained model is not evaluated"),
    Ignored("legacy_load", bool, "checkpoints of either form are read"),
    Ignored("start_epoch", int, "it comes with --resume_all", lambda value, _: value <= 0),
    Ignored("clip_length", int, "feature rows are 16/30 s apart"),
    Ignored("max_windows", int, "a query has one window"),
    Ignored("no_norm_tfeat", bool, "token features are never scaled"),
    Ignored("v_feat_dirs", list[str], "features lie under <data_root>/features, named by --fv"),
    Ignored("onlyv_layers", int, "no published model has such layers"),
    Ignored("dec_layers", int, "no published model has such layers"),
    Ignored("num_queries", int, "no published model has such queries"),
    Ignored("txt_drop_ratio", float, "tokens are never dropped", _only(0)),
    Ignored("no_aux_loss", bool, "no published model has such losses"),
    Ignored(
        "video_frame_contrastive_loss", bool, "on unless --video_frame_contrastive_loss_coef is 0"
    ),
    Ignored("vslnet_dataset_save_dir", str, "stores are under --cache_dir"),
    Ignored("v_target_size", int, "no published loss predicts features"),
    Ignored("warmup_proportion", float, "of BertAdam, which no published script uses"),
    Ignored("ego4d_train_num", int, "counted from the training split"),
    Ignored("optim_name", str, "the optimizer is AdamW", _only("AdamW")),
    Ignored(
        "numscale_list",
        list[int],
        f"clips are cut into {', '.join(map(str, SCALES))} parts",
        _only(list(SCALES)),
    ),
    Ignored("allscaletopk", int, "each scale offers 5 spans, in published code whatever it is"),
    Ignored("use_sw", int, "sliding windows are always used", _only(1)),
    Ignored(
        "sw_len_ratio",
        list[float],
        "sliding windows keep 0.4 to 0.8 of a clip",
        _only([0.4, 0.8]),
    ),
    Ignored("use_vs", int, "videos are always spliced", _only(1)),
    Ignored("vs_prob", float, "half of the samples are spliced", _only(0.5)),
    Ignored("preds_list", list[str], "utils/ensemble_predictions.py merges predictions"),
    Ignored("period", int, "a progress bar shows the loss"),
    Ignored("model_dir", str, "it is where --resume lies"),
    Ignored("eval_id", str, "predictions are named by the checkpoint's step"),
)
