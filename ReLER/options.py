"""ReLER's options, named as in the published release, so that scripts and checkpoints fit."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.options import option
from utils.training_options import FREE, TrainingOptions

OPTIONS_FILE = "opt.json"  # in the run folder


@dataclass(kw_only=True)
class Options(TrainingOptions):
    """Everything that can be chosen on the command line."""

    fv: str = option(explanation="video feature, besides clip: a folder under <data_root>/features")

    # Data
    max_v_l: int = option(600, "units a clip is pooled to", usual=True)
    max_q_l: int = option(32, "positions of tokens (--use_txt_pos); queries are read whole")
    ctx_mode: str = option(
        "video_tef", "features, temporal endpoints or both", choices=("video_tef", "video", "tef")
    )
    no_norm_vfeat: bool = option(False, "features as they are, not scaled to length 1")
    vslnet_thres_in_train: float = option(0.0, "train on windows longer than this (seconds)")

    # Text
    text_encoder: str | None = option(None, "name or folder (default: published CLIP)", usual=True)
    text_features: str = option(
        "cached", "encode once, or in the loop", choices=("cached", "live"), usual=True
    )

    # Model
    hidden_dim: int = option(256, "hidden width")
    n_input_proj: int = option(2, "layers of the input projections")
    input_dropout: float = option(0.5, "dropout of the input projections")
    position_embedding: str = option("sine", "of video units", choices=("sine", "learned"))
    use_txt_pos: bool = option(False, "learned positions of query tokens")
    num_cross_encoder_layers: int = option(3, "cross-modal layers")
    bi_num_attention_heads: int = option(8, "heads of the cross-modal layers")
    v_intermediate_size: int = option(1024, "feed-forward width, video")
    intermediate_size: int = option(1024, "feed-forward width, text")
    cross_input_dropout: float = option(0.1, "dropout before the cross-modal layers")
    v_attention_probs_dropout_prob: float = option(0.1, "dropout of attention to video units")
    attention_probs_dropout_prob: float = option(0.1, "dropout of attention to tokens")
    v_hidden_dropout_prob: float = option(0.1, "dropout of the cross-modal layers, video")
    hidden_dropout_prob: float = option(0.1, "dropout of the cross-modal layers, text")
    cross_text_use_ori: bool = option(False, "each cross-modal layer hears the text as it came")
    enc_layers: int = option(0, "self-attention layers over video and text together")
    nheads: int = option(8, "heads of the self-attention layers")
    dim_feedforward: int = option(1024, "feed-forward width of the self-attention layers")
    dropout: float = option(0.1, "dropout of the self-attention layers")
    cross_first: bool = option(True, "cross-modal layers come before self-attention layers")
    pre_norm: bool = option(False, "norms before the sublayers, not after")
    NPM_score_norm: int = option(0, "1: the parts' scores are divided by the highest")
    contrastive_hdim: int = option(64, "width of the contrastive projections")
    conditioned_span_pred_predictor: str = option(
        "bert", "transformer, LSTM or nothing before the heads", choices=("bert", "rnn", "justfc")
    )
    conditioned_span_pred_num_heads: int = option(8, "heads of the span predictor")
    conditioned_span_pred_drop_rate: float = option(0.2, "dropout of the span predictor")

    # Losses
    lw_start_end: float = option(1.0, "weight of the start and end loss")
    lw_highlight: float = option(20.0, "weight of the highlight loss")
    lw_saliency: float = option(1.0, "weight of the saliency loss")
    lw_npm: float = option(1.0, "weight of the part loss")
    video_frame_contrastive_loss_coef: float = option(1.0, "weight of the contrastive loss")
    saliency_margin: float = option(0.2, "margin of the saliency loss")
    temperature: float = option(0.07, "temperature of the contrastive loss")

    # Training
    epochs: int = option(200, "passes over the training split", alias="n_epoch", usual=True)
    batch_size: int = option(
        32, "queries a step, over all processes together", alias="bsz", usual=True
    )
    eval_bsz: int = option(32, "queries predicted at once")
    lr: float = option(1e-4, "learning rate", usual=True)
    lr_drop: int = option(400, "epochs after which the learning rate drops by 10")
    wd: float = option(1e-4, "weight decay")
    grad_clip: float = option(0.1, "largest gradient norm")
    seed: int = option(2018, "seed of every random draw", usual=True)
    resume: str | None = option(
        None, "checkpoint file or run folder to take the weights from", usual=True
    )
    resume_opt: bool = option(False, "take its optimizer too")
    resume_all: bool = option(False, "take its optimizer, scheduler and epoch too", usual=True)
    eval_period: int = option(0, "steps between evaluations (0: at the end of each epoch)")

    # Runs
    results_root: str = option("results", "run folders are made here", usual=True)
    exp_id: str | None = option(
        None, "names the run folder video_tef-<exp_id> (default: task_fv)", usual=True
    )

    # Of the published release, without meaning here
    num_workers: int = option(0, "accepted, no effect: data loading needs no processes")
    device: int = option(0, "accepted, no effect: set CUDA_VISIBLE_DEVICES")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_below(1, "max_v_l", "max_q_l", "hidden_dim", "epochs", "batch_size", "eval_bsz")
        if self.lr <= 0:
            raise UserError(f"--lr must be positive, is {self.lr}")
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
FREE_OPTIONS = (*FREE, "num_workers", "device", "results_root", "eval_bsz")
