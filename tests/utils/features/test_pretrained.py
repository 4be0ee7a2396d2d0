"""Folders of encoders that are damaged or odd: one line, and never wrong features."""

import contextlib
import json
import random
import re
import shutil

import numpy as np
import pytest

from tests.bad_inputs import world
from tests.bad_inputs.test_mutations import mutate_json
from utils.base.errors import UserError
from utils.features.image_encoders import ImageEncoder
from utils.features.text_encoders import load_encoder

SIZES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
LETTERS = [*"abc", "a</w>", "b</w>", "c</w>", "<|startoftext|>", "<|endoftext|>"]
TEXT = {**SIZES, "vocab_size": len(LETTERS), "bos_token_id": 6, "eos_token_id": 7}


@pytest.fixture(scope="module")
def whole_clip(tmp_path_factory):
    """A tiny random CLIP, both halves, 24 wide: `projection_dim` stands at the top level only."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps({t: n for n, t in enumerate(LETTERS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    image = {**SIZES, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=TEXT, vision_config=image, projection_dim=24)).save_pretrained(
        folder
    )
    config = json.loads((folder / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        config[part].pop("projection_dim", None)
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def folder(whole_clip, tmp_path):
    return shutil.copytree(whole_clip, tmp_path / "clip")


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def use(folder):
    """Encode a picture and a sentence."""
    image = ImageEncoder("clip", str(folder), "cpu").encode(np.zeros((1, 1, 16, 16, 3), np.uint8))
    text = load_encoder(str(folder))
    tokens, _ = text.tokenize(["a b c"])
    import torch

    numbers = torch.from_numpy(tokens)[None]
    features = text.encode_batch(numbers, torch.ones_like(numbers))
    return image, features, text


def test_projection_dim_at_the_top_level_only(folder):
    image, features, text = use(folder)
    assert image.shape == (1, 24) and features.shape[-1] == text.width == 24


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config.json", {"projection_dim": "x"}, r"config.json: Expected `int .*projection_dim"),
        ("config.json", {"text_config": {"hidden_size": -8}}, r"hidden_size"),
        ("config.json", {"vision_config": {"num_hidden_layers": 10**6}}, "num_hidden_layers"),
        ("config.json", {"vision_config": [1]}, r"config.json: Expected `object"),
        ("config.json", {"text_config": {**SIZES, "vocab_size": 5}}, "not of one encoder"),
        ("config.json", {"text_config": {**TEXT, "layer_norm_eps": None}}, "can't be used as"),
        ("config.json", {"num_labels": 2**31}, "num_labels"),
        ("tokenizer_config.json", {"model_max_length": "x"}, "tokenizer_config.json: Expected"),
        ("tokenizer_config.json", {"model_max_length": -5}, "tokenizer_config.json: Expected"),
        ("preprocessor_config.json", {"image_std": [0, 0, 0]}, "image_std"),
        ("preprocessor_config.json", {"image_mean": "x"}, "image_mean"),
    ],
)
def test_values_that_no_encoder_has(folder, name, changes, message):
    edit(folder / name, **changes)
    with pytest.raises(UserError, match=message):
        use(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"]
)
def test_a_list_in_place_of_an_object(folder, name):
    (folder / name).write_text("[1]")
    with pytest.raises(UserError, match=re.escape(f"{name}: Expected `object`, got `array`")):
        use(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(folder, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"
    (folder / name).write_text(pointer)
    with pytest.raises(UserError, match=f"{name}: a pointer of git-lfs; fetch the file"):
        use(folder)
    with pytest.raises(UserError, match=f"{name}: a pointer of git-lfs; fetch the file"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"]
)
def test_folders_changed_at_random(folder, name):
    """They are used, or named in one line, within bounded memory and time."""
    content = (folder / name).read_bytes()
    for seed in range(12):
        (folder / name).write_bytes(mutate_json(content, random.Random(f"{name} {seed}")))
        with world.limits(-1), contextlib.suppress(UserError):
            use(folder)
