"""Image towers of `transformers` by folder: their own image embedding, pixels as they say."""

import json

import numpy as np
import pytest
import torch

from tests.utils.features.conftest import SIZES
from utils.base.errors import UserError
from utils.features.image_encoders import ImageEncoder

IMAGES = {**SIZES, "image_size": 16, "patch_size": 8}


def siglip():
    from transformers import SiglipConfig, SiglipModel

    text = {**SIZES, "vocab_size": 20, "max_position_embeddings": 8, "projection_size": 16}
    return SiglipModel(SiglipConfig(text_config=text, vision_config=IMAGES))


def dinov2():
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**{**IMAGES, "image_size": 40}, mlp_ratio=2))


def dinov3():
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    return DINOv3ViTModel(DINOv3ViTConfig(**IMAGES, num_register_tokens=4))


@pytest.mark.parametrize(
    ("make", "settings", "size", "side"),
    [
        (siglip, {"size": {"height": 16, "width": 16}}, 16, 16),
        (dinov2, {"size": {"shortest_edge": 24}, "crop_size": {"height": 16, "width": 16}}, 16, 24),
        (dinov2, {"size": 24, "crop_size": 16}, 16, 24),
        (dinov2, {}, 40, 40),
        (dinov3, {}, 16, 16),
    ],
)
def test_a_tower_gives_its_own_image_embedding(tmp_path, make, settings, size, side):
    torch.manual_seed(0)
    model = make().eval()
    model.save_pretrained(tmp_path)
    settings = {**settings, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = ImageEncoder("image", str(tmp_path), "cpu")
    assert (encoder.size, encoder.grid.side) == (size, side)
    frames = np.random.default_rng(0).integers(0, 256, (3, 1, size, size, 3), np.uint8)
    rows = encoder.encode(frames)
    pixels = torch.from_numpy(frames[:, 0]).movedim(-1, 1) / 127.5 - 1
    embed = getattr(model, "get_image_features", model)
    with torch.no_grad():
        torch.testing.assert_close(rows, embed(pixel_values=pixels).pooler_output)
    assert rows.shape == (3, 16)


def test_a_whole_clip_gives_the_same_as_type_clip(clip):
    frames = np.random.default_rng(0).integers(0, 256, (3, 1, 16, 16, 3), np.uint8)
    rows = [ImageEncoder(kind, str(clip), "cpu").encode(frames) for kind in ("clip", "image")]
    torch.testing.assert_close(*rows)


def test_a_folder_without_an_image_embedding_is_refused(bert):
    with pytest.raises(UserError, match="can't be used as the image encoder"):
        ImageEncoder("image", str(bert), "cpu")
    with pytest.raises(UserError, match="image features have no encoder to fetch: give --encoder"):
        ImageEncoder("image")
