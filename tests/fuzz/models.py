"""Untrained runs of both models on the fuzzed data root, and their inference as a program."""

from pathlib import Path

import torch

import ReLER.options
import VSLNet.options
from ReLER.infer import infer as reler_infer
from ReLER.text import open_encoder
from ReLER.weights import build_model as build_reler
from ReLER.weights import checkpoint_content
from tests.fuzz.project import WIDTH
from utils.options import parse_options
from VSLNet.infer import infer as vslnet_infer
from VSLNet.text import open_text
from VSLNet.weights import build_model as build_vslnet

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "the", "cup", "who", "?"]
COMMON = ("--task", "nlq_official_v1", "--fv", "egovlp")
VSLNET = (*COMMON, "--dim", "8", "--num_heads", "2", "--max_pos_len", "16")
RELER = (
    *COMMON, "--hidden_dim", "8", "--bi_num_attention_heads", "2", "--v_intermediate_size", "8",
    "--intermediate_size", "8", "--max_v_l", "24", "--conditioned_span_pred_num_heads", "2",
    "--num_cross_encoder_layers", "1", "--contrastive_hdim", "4", "--exp_id", "fuzz",
)  # fmt: skip


def vslnet(arguments: list[str]) -> None:
    """`VSLNet/main.py --mode val` with these arguments."""
    vslnet_infer(parse_options(VSLNet.options.Options, "VSLNet", arguments))


def reler(arguments: list[str]) -> None:
    """`ReLER/main.py --mode val` with these arguments."""
    reler_infer(parse_options(ReLER.options.Options, "ReLER", arguments))


def vslnet_arguments(root: Path) -> list[str]:
    """For `vslnet`."""
    places = ("--data_root", str(root), "--model_dir", str(root / "vslnet"))
    places += ("--text_encoder", str(root / "bert"))
    return [*VSLNET, *places, "--mode", "val", "--eval_gt_json", str(root / "nlq_val.json")]


def reler_arguments(root: Path) -> list[str]:
    """For `reler`."""
    places = ("--data_root", str(root), "--results_root", str(root / "reler"))
    places += ("--text_encoder", str(root / "bert"))
    return [*RELER, *places, "--mode", "val", "--eval_gt_json", str(root / "nlq_val.json")]


def vslnet_file(root: Path) -> Path:
    """The checkpoint that `vslnet` reads."""
    options = parse_options(VSLNet.options.Options, "VSLNet", vslnet_arguments(root))
    return options.run_folder / "vslnet_7.t7"


def reler_file(root: Path) -> Path:
    """The checkpoint that `reler` reads."""
    return root / "reler" / "video_tef-fuzz" / "model_7.t7"


def vslnet_state(root: Path) -> dict[str, torch.Tensor]:
    """The weights of an untrained VSLNet."""
    options = parse_options(VSLNet.options.Options, "VSLNet", vslnet_arguments(root))
    return dict(build_vslnet(options, WIDTH, open_text(options)).state_dict())


def reler_content(root: Path) -> dict:
    """The checkpoint of an untrained ReLER."""
    options = parse_options(ReLER.options.Options, "ReLER", reler_arguments(root))
    model = build_reler(options, 2 * WIDTH + 2, open_encoder(options).width)
    optimizer = torch.optim.AdamW(model.parameters())
    return checkpoint_content(model, optimizer, options, 0)


def write_runs(root: Path) -> None:
    """Save both, and the text encoder they read with, a random one."""
    from transformers import BertConfig, BertModel, BertTokenizerFast  # slow to import

    (root / "bert").mkdir(exist_ok=True)
    (root / "bert" / "vocab.txt").write_text("\n".join(WORDS))
    shape = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(WORDS), num_hidden_layers=1, **shape)
    BertModel(config).save_pretrained(root / "bert")
    BertTokenizerFast(str(root / "bert" / "vocab.txt")).save_pretrained(root / "bert")
    for file, content in (
        (vslnet_file(root), vslnet_state(root)),
        (reler_file(root), reler_content(root)),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, file)
