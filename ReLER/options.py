"""ReLER's options, named as in the published release, so that scripts and checkpoints fit."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from utils.base.errors import UserError
from utils.base.options import SEEDS, Ignored, option
from utils.training.options import FREE, TrainingOptions

OPTIONS_FILE = "opt.json"  # in the run folder
SCALES = (2, 3, 4, 5, 6)  # numbers of parts, in training one drawn per batch, in inference all
TOP = 5  # windows predicted for a query


@dataclass(kw_only=True)
class Options(TrainingOptions):
    """Everything that can be chosen on the command line."""

    task: str = option(
        explanation="data set: a folder under <data_root>/dataset", aliases=("vsldataset_task",)
    )
    fv: str = option(
        explanation="video feature, besides clip: a folder under <data_root>/features",
        aliases=("vsldataset_fv",),
    )
    mode: str = option(
        "train",
        "train, or predict a split",
        choices=("train", "val", "test"),
        usual=True,
        aliases=("split",),
    )
    eval_gt_json: str | None = option(
        None,
        "annotations to score against, if they hold times",
        usual=True,
        aliases=("testing_gt_json",),
    )
    v_feat_dim: int | None = option(
        None, "checked against the width of features, CLIP and endpoints", within="[1, inf)"
    )
    t_feat_dim: int | None = option(
        None, "checked against the text encoder's width", within="[1, inf)"
    )

    # Data
    max_v_l: int = option(600, "units a clip is pooled to", usual=True, within="[1, 10000]")
    max_q_l: int = option(
        32, "positions of tokens (--use_txt_pos); queries are read whole", within="[1, 10000]"
    )
    ctx_mode: str = option(
        "video_tef", "features, temporal endpoints or both", choices=("video_tef", "video", "tef")
    )
    no_norm_vfeat: bool = option(False, "features as they are, not scaled to length 1")
    vslnet_thres_in_train: float = option(
        0.0, "train on windows longer than this (seconds)", within="[-1, inf)"
    )

    # Text
    text_encoder: str | None = option(None, "name or folder (default: published CLIP)", usual=True)
    text_features: str = option(
        "cached", "encode once, or in the loop", choices=("cached", "live"), usual=True
    )

    # Model
    hidden_dim: int = option(256, "hidden width", within="[1, 8192]")
    n_input_proj: int = option(2, "layers of the input projections", within="[1, 100]")
    input_dropout: float = option(0.5, "dropout of the input projections", within="[0, 1)")
    position_embedding: str = option("sine", "of video units", choices=("sine", "learned"))
    use_txt_pos: bool = option(False, "learned positions of query tokens")
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
    cross_text_use_ori: bool = option(False, "each cross-modal layer hears the text as it came")
    enc_layers: int = option(
        0, "self-attention layers over video and text together", within="[0, 100]"
    )
    nheads: int = option(8, "heads of the self-attention layers", within="[1, 8192]")
    dim_feedforward: int = option(
        1024, "feed-forward width of the self-attention layers", within="[1, 8192]"
    )
    dropout: float = option(0.1, "dropout of the self-attention layers", within="[0, 1)")
    cross_first: bool = option(True, "cross-modal layers come before self-attention layers")
    pre_norm: bool = option(False, "norms before the sublayers, not after")
    NPM_score_norm: int = option(
        0, "1: the parts' scores are divided by the highest", within="[0, 1]"
    )
    contrastive_hdim: int = option(64, "width of the contrastive projections", within="[1, 8192]")
    conditioned_span_pred_predictor: str = option(
        "bert", "transformer, LSTM or nothing before the heads", choices=("bert", "rnn", "justfc")
    )
    conditioned_span_pred_num_heads: int = option(
        8, "heads of the span predictor", within="[1, 8192]"
    )
    conditioned_span_pred_drop_rate: float = option(
        0.2, "dropout of the span predictor", within="[0, 1)"
    )

    # Losses
    lw_start_end: float = option(1.0, "weight of the start and end loss")
    lw_highlight: float = option(20.0, "weight of the highlight loss")
    lw_saliency: float = option(1.0, "weight of the saliency loss")
    lw_npm: float = option(1.0, "weight of the part loss")
    video_frame_contrastive_loss_coef: float = option(1.0, "weight of the contrastive loss")
    saliency_margin: float = option(0.2, "margin of the saliency loss")
    temperature: float = option(0.07, "temperature of the contrastive loss", within="(0, inf)")

    # Training
    epochs: int = option(
        200,
        "passes over the training split",
        aliases=("n_epoch",),
        usual=True,
        within="[1, inf)",
    )
    batch_size: int = option(
        32,
        "queries a step, over all processes together",
        aliases=("bsz",),
        usual=True,
        within="[1, inf)",
    )
    eval_bsz: int = option(64, "queries predicted at once", within="[1, inf)")
    lr: float = option(1e-4, "learning rate", usual=True, within="(0, inf)")
    lr_drop: int = option(
        400, "epochs after which the learning rate drops by 10", within="[1, inf)"
    )
    wd: float = option(1e-4, "weight decay")
    grad_clip: float = option(0.1, "largest gradient norm", within="(0, inf)")
    seed: int = option(2018, "seed of every random draw", usual=True, within=SEEDS)
    resume: str | None = option(
        None,
        "checkpoint file or run folder to take the weights from",
        usual=True,
        aliases=("model_dir",),
    )
    eval_id: int | None = option(None, "step of the checkpoint in the run folder to resume")
    resume_opt: bool = option(False, "take its optimizer too")
    resume_all: bool = option(False, "take its optimizer, scheduler and epoch too", usual=True)
    eval_period: int = option(0, "steps between evaluations (0: at the end of each epoch)")

    # Runs
    results_root: str = option("results", "run folders are made here", usual=True)
    exp_id: str | None = option(
        None, "names the run folder video_tef-<exp_id> (default: task_fv)", usual=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_id is not None:
            if self.resume is None:
                raise UserError("--eval_id needs --model_dir, the run folder with that checkpoint")
            self.resume = str(Path(self.resume) / f"model_{self.eval_id}.t7")
            self.eval_id = None
        if self.fv == "clip":
            raise UserError("--fv clip: CLIP is always there, name another feature beside it")
        if (self.resume_opt or self.resume_all) and self.resume is None:
            raise UserError("--resume_opt and --resume_all need --resume CHECKPOINT")

    @property
    def run_folder(self) -> Path:
        """Where checkpoints and scores of this run lie, as published."""
        return Path(self.results_root) / f"video_tef-{self.exp_id or f'{self.task}_{self.fv}'}"

    def part(self, kind: type) -> object:
        """The options of the model, the losses or the data alone, as their own dataclass."""
        names = {field.name for field in dataclasses.fields(kind)}
        return kind(**{k: v for k, v in dataclasses.asdict(self).items() if k in names})


# Options that may differ between the parts of a run that was stopped and continued.
FREE_OPTIONS = (*FREE, "results_root", "eval_bsz")


def _same_width(value: int, options: Options) -> bool:
    return value == options.hidden_dim


# Options of the published release that nothing here depends on.
IGNORED = (
    Ignored("device", int, "set CUDA_VISIBLE_DEVICES"),
    Ignored("num_workers", int, "data loading needs no processes"),
    Ignored("vsldataset_num_workers", int, "data loading needs no processes"),
    Ignored("no_pin_memory", bool, "memory is pinned where that helps"),
    Ignored("max_es_cnt", int, "all epochs are trained; the best checkpoints are kept"),
    Ignored("eval_untrained", bool, "an untrained model is not evaluated"),
    Ignored("legacy_load", bool, "checkpoints of either form are read"),
    Ignored("start_epoch", int, "it comes with --resume_all", lambda value, _: value <= 0),
    Ignored("clip_length", int, "feature rows are 16/30 s apart"),
    Ignored("max_windows", int, "a query has one window"),
    Ignored("no_norm_tfeat", bool, "token features are never scaled"),
    Ignored("v_feat_dirs", list, "features lie under <data_root>/features, named by --fv"),
    Ignored("onlyv_layers", int, "no published model has such layers"),
    Ignored("dec_layers", int, "no published model has such layers"),
    Ignored("num_queries", int, "no published model has such queries"),
    Ignored("txt_drop_ratio", float, "tokens are never dropped", lambda value, _: value == 0),
    Ignored("no_aux_loss", bool, "no published model has such losses"),
    Ignored(
        "video_frame_contrastive_loss", bool, "on unless --video_frame_contrastive_loss_coef is 0"
    ),
    Ignored("vslnet_datapath", str, "data sets lie under <data_root>/dataset"),
    Ignored("vslnet_dataset_save_dir", str, "stores are under --cache_dir"),
    Ignored("hidden_size", int, "every width is --hidden_dim", _same_width),
    Ignored("v_hidden_size", int, "every width is --hidden_dim", _same_width),
    Ignored("bi_hidden_size", int, "every width is --hidden_dim", _same_width),
    Ignored("hidden_act", str, "the activation is gelu", lambda value, _: value == "gelu"),
    Ignored("v_hidden_act", str, "the activation is gelu", lambda value, _: value == "gelu"),
    Ignored("v_target_size", int, "no published loss predicts features"),
    Ignored("warmup_proportion", float, "of BertAdam, which no published script uses"),
    Ignored("ego4d_train_num", int, "counted from the training split"),
    Ignored("optim_name", str, "the optimizer is AdamW", lambda value, _: value == "AdamW"),
    Ignored(
        "numscale_list",
        list,
        f"clips are cut into {', '.join(map(str, SCALES))} parts",
        lambda value, _: value == list(map(str, SCALES)),
    ),
    Ignored("allscaletopk", int, "each scale offers 5 spans", lambda value, _: value == TOP),
    Ignored("use_sw", int, "sliding windows are always used", lambda value, _: value == 1),
    Ignored(
        "sw_len_ratio",
        list,
        "sliding windows keep 0.4 to 0.8 of a clip",
        lambda value, _: value == ["0.4", "0.8"],
    ),
    Ignored("use_vs", int, "videos are always spliced", lambda value, _: value == 1),
    Ignored("vs_prob", float, "half of the samples are spliced", lambda value, _: value == 0.5),
    Ignored("preds_list", list, "use utils/ensemble_predictions.py", lambda value, _: False),
    Ignored("period", int, "a progress bar shows the loss"),
    Ignored("eval_results_dir", str, "predictions go to <run folder>/preds"),
)
