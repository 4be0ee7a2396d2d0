"""Untrained runs of both models on the fuzzed data root, and their inference as a program."""

import shutil
from pathlib import Path

import torch

import ReLER.options
import VSLNet.options
from ReLER.infer import infer as reler_infer
from ReLER.text import open_encoder
from ReLER.weights import build_model as build_reler
from ReLER.weights import checkpoint_content
from tests.fuzz.project import EVALUATION, WIDTH, ends_well, toy_folder
from tests.utils.training import toy_training
from utils.base.files import write_json
from utils.base.options import parse_options
from utils.base.tensor_files import load_last_whole
from utils.features.text_encoders import describe_encoder
from VSLNet.infer import infer as vslnet_infer
from VSLNet.text import open_text
from VSLNet.weights import build_model as build_vslnet

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "the", "cup", "who", "?"]
VOCABULARY = {"words": ["the", "cup", "who"], "characters": ["c", "u", "p"]}
VECTORS = b"the 0.1 0.2 0.3 0.4\ncup 1 -1 1e-3 0\n. . . 1 2 3 4\nwho 0 0 0 0"
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


def vslnet_state(root: Path, arguments: list[str] | None = None) -> dict[str, torch.Tensor]:
    """The weights of an untrained VSLNet, for `vslnet_arguments` or others."""
    arguments = arguments or vslnet_arguments(root)
    options = parse_options(VSLNet.options.Options, "VSLNet", [*arguments, "--mode", "val"])
    return dict(build_vslnet(options, WIDTH, open_text(options)).state_dict())


def reler_content(root: Path) -> dict:
    """The checkpoint of an untrained ReLER."""
    options = parse_options(ReLER.options.Options, "ReLER", reler_arguments(root))
    model = build_reler(options, 2 * WIDTH + 2, open_encoder(options).width)
    optimizer = torch.optim.AdamW(model.parameters())
    return checkpoint_content(model, optimizer, options, 0)


def words_arguments(root: Path) -> list[str]:
    """For `vslnet` with words and characters instead of a text encoder."""
    return [*vslnet_arguments(root), "--predictor", "rnn", "--word_dim", "4", "--char_dim", "4"]


def words_file(root: Path) -> Path:
    """The checkpoint that it then reads."""
    options = parse_options(VSLNet.options.Options, "VSLNet", words_arguments(root))
    return options.run_folder / "vslnet_7.t7"


def encoder_description(root: Path) -> dict:
    """What a run says of its text encoder."""
    options = parse_options(VSLNet.options.Options, "VSLNet", vslnet_arguments(root))
    return describe_encoder(open_text(options).encoder)


def saved_state(root: Path) -> dict:
    """The state that the run of a linear map ended with."""
    return load_last_whole(toy_folder(root) / "state.pt")[0]


def store(root: Path, role: str) -> Path:
    """A store that prediction reads: `rows` that of ReLER, others that of VSLNet."""
    cache = root / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    if role == "rows":
        ends_well(reler, *reler_arguments(root))
    else:
        ends_well(vslnet, *vslnet_arguments(root))
    return min(cache.glob(f"{role}-*[!k]"))


def write_runs(root: Path) -> None:
    """Save both, and the text encoder they read with, a random one."""
    from transformers import BertConfig, BertModel, BertTokenizerFast  # slow to import

    (root / "bert").mkdir(exist_ok=True)
    (root / "bert" / "vocab.txt").write_text("\n".join(WORDS))
    shape = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(WORDS), num_hidden_layers=1, **shape)
    BertModel(config).save_pretrained(root / "bert")
    BertTokenizerFast(str(root / "bert" / "vocab.txt")).save_pretrained(root / "bert")
    write_json(vslnet_file(root).with_name("text.json"), encoder_description(root))
    write_json(words_file(root).with_name("text.json"), VOCABULARY)
    (root / "features" / "glove.840B.4d.txt").write_bytes(VECTORS)
    for file, content in (
        (vslnet_file(root), vslnet_state(root)),
        (words_file(root), vslnet_state(root, words_arguments(root))),
        (reler_file(root), reler_content(root)),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, file)
    ends_well(lambda words: toy_training.train(toy_training.Options(*words)), toy_folder(root))
    write_json(toy_folder(root) / "metrics.jsonl", EVALUATION)
