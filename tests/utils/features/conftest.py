"""Folders of tiny random text encoders."""

import json
import shutil

import pytest
import torch

from tests.bad_inputs.world import write_text_encoder

LETTERS = "abcdefghijklmnopqrstuvwxyz?#"
TOKENS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
SIZES = {
    "hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
TEXT = {**SIZES, "vocab_size": len(TOKENS), "bos_token_id": len(TOKENS) - 2,
        "eos_token_id": len(TOKENS) - 1}  # fmt: skip


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A BERT, 12 wide, of up to 20 tokens; do not change it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder") / "bert"
    return write_text_encoder(
        folder, hidden_size=12, num_hidden_layers=2, max_position_embeddings=20
    )


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A CLIP, text and images, 10 wide, with a tokenizer of single letters; do not change it.

    `projection_dim` stands at the top level of its config only.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast  # slow to import

    folder = tmp_path_factory.mktemp("clip")
    files = [str(folder / name) for name in ("vocab.json", "merges.txt")]
    (folder / "vocab.json").write_text(json.dumps({t: n for n, t in enumerate(TOKENS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizerFast(*files).save_pretrained(folder)
    images = {**SIZES, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=images, projection_dim=10))
    with torch.no_grad():  # so that nothing is small enough to hide a mistake
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        config[part].pop("projection_dim", None)
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def bert_copy(bert, tmp_path):
    """A BERT to be changed."""
    return shutil.copytree(bert, tmp_path / "copy")


@pytest.fixture
def clip_copy(clip, tmp_path):
    """A CLIP to be changed."""
    return shutil.copytree(clip, tmp_path / "copy")
