"""The model's numbers are the published ones, stage by stage; what padding may and may not do."""

import json

import numpy as np
import pytest
import torch

from GroundNLQ.layers import sine_positions
from GroundNLQ.model import GroundNLQ
from GroundNLQ.points import candidates, padded_rows, soft_nms
from tests.GroundNLQ.drawn import rows_of, state_dict

FORWARD = {"rtol": 0, "atol": 1e-4}


def assert_same(actual, expected, mask=None):
    """Equal to what a forward pass may differ by, where the mask is 1."""
    if mask is not None:
        mask = mask.bool()
        actual, expected = actual[mask], expected[mask]
    torch.testing.assert_close(actual, expected, **FORWARD)


@torch.inference_mode()
def test_every_stage_is_the_published_one(small, inputs, reference):
    model, (video, video_mask, text, text_mask) = small(), inputs
    mask = video_mask[..., None]
    assert_same(sine_positions(256, 32), reference["position_table"])
    stages = {}
    first, branch = model.backbone.vid_stem[0], model.backbone.branch[0]
    for name, module in (
        ("stem0_self_attention", first.attn),
        ("stem0_cross_attention", first.cross_attn),
        ("branch0_self_attention", branch.attn),
        ("video_embedding_with_positions", first.ln1),
        ("video_stem0", model.backbone.vid_stem[1].ln1),
        ("text_embedding", model.backbone.txt_stem[0].ln1),
        ("text_stem0", model.backbone.txt_stem[1].ln1),
    ):
        module.register_forward_hook(
            lambda module, before, after, name=name: stages.__setitem__(
                name, after if "attention" in name else before[0]
            )
        )
    encoded, query = model.encode_video(video, video_mask), model.encode_query(text, text_mask)
    assert_same(query, reference["text_stem"])
    levels = model.pyramid(encoded, video_mask, query, text_mask)
    for name, stage in stages.items():
        assert_same(stage, reference[name])
    plain = stages["video_embedding_with_positions"] - sine_positions(256, 32) * mask
    assert_same(plain, reference["video_embedding"])
    for level, (x, mask) in enumerate(levels):
        assert torch.equal(mask[..., 0].bool(), reference[f"level{level}/mask"])
        assert_same(x, reference[f"level{level}/features"])
        assert_same(model.neck.fpn_norms[level](x), reference[f"level{level}/neck"])


@pytest.mark.parametrize(("kind", "prefix"), [("small", ""), ("small_star", "star/")])
@torch.inference_mode()
def test_small_models_give_the_published_logits_and_offsets(small, inputs, reference, kind, prefix):
    grounding = small(kind)(*inputs)
    for part in ("logits", "offsets"):
        levels = [reference[f"{prefix}level{level}/{part}"] for level in range(4)]
        assert_same(getattr(grounding, part), torch.cat(levels, 1))


@pytest.mark.parametrize(
    ("kind", "prefix", "arch"),
    [("released", "full", (2, 4, 4, 0, 6)), ("star", "full_star", (2, 4, 4, 6, 0))],
)
@torch.inference_mode()
def test_full_size_models_give_the_published_windows(schema, reference, kind, prefix, arch):
    names = schema[f"state_dict_{kind}"]
    model = GroundNLQ(2304, 512, arch=arch).eval()
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == names
    assert list(model.state_dict()) == list(names)
    model.load_state_dict(state_dict(names))
    rows = int(padded_rows(np.array(300), 7))
    video = torch.zeros(1, rows, 2304)
    video[0, :300] = torch.from_numpy(rows_of("full-video", 300, 2304))
    mask = (torch.arange(rows) < 300).float()[None]
    text = torch.from_numpy(rows_of("full-text", 8, 512))[None]
    grounding = model(video, mask, text, torch.ones(1, 8))
    for part in ("logits", "offsets"):
        expected = [reference[f"{prefix}/level{level}/{part}"] for level in range(7)]
        assert_same(getattr(grounding, part)[grounding.mask.bool()], torch.cat(expected))
    windows, scores = soft_nms(
        *candidates(grounding.logits.sigmoid() * grounding.mask, grounding.offsets, rows, 7), 5
    )
    seconds = ((windows + 0.5) * 16.043 / 30).clamp(0, 160.2)
    expected = reference[f"{prefix}/seconds_published"], reference[f"{prefix}/scores"]
    torch.testing.assert_close(seconds[0], expected[0], rtol=0, atol=1e-3)
    torch.testing.assert_close(scores[0], expected[1], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_more_padding_changes_nothing_once_each_level_has_some(small, reference):
    model = small()
    text, text_mask = reference["text_features"][1:2, :4], torch.ones(1, 4)
    predictions = []
    for rows in (padded_rows(np.array(150), 4), 256, 320):
        video = torch.zeros(1, rows, 24)
        video[0, :150] = reference["video_features"][1, :150]
        result = model(video, (torch.arange(rows) < 150).float()[None], text, text_mask)
        predictions.append((result.logits[result.mask.bool()], result.offsets[result.mask.bool()]))
    for other in predictions[1:]:
        torch.testing.assert_close(other, predictions[0], rtol=0, atol=1e-5)


def test_lengths_leave_a_position_free_at_the_coarsest_level():
    rows = np.arange(1, 4000)
    padded = padded_rows(rows, 7)
    assert (padded % 256 == 0).all() and (padded // 64 > -(-rows // 64)).all()
    assert padded_rows(np.array([900, 2496]), 7).tolist() == [1024, 2560]


@torch.inference_mode()
def test_masked_text_makes_a_query_independent_of_its_batch(small, inputs):
    video, video_mask, text, text_mask = inputs
    for masked in (True, False):
        model = small(masked=masked)
        together = model(*inputs)
        alone = model(video[2:], video_mask[2:], text[2:, :1], text_mask[2:, :1])
        worst = (together.logits[2:] - alone.logits).abs().max()
        assert worst < 1e-4 if masked else worst > 0.1


def test_a_new_model_is_initialised_as_published(folder):
    kinds = json.loads((folder / "training_groundnlq.json").read_text())["initialisation"]
    torch.manual_seed(0)
    state = GroundNLQ(2304, 512).state_dict()
    for measured in kinds["measured"]:
        names = [n for n in state if _kind(n) == measured["kind"]]
        assert len(names) == measured["tensors"], measured["kind"]
        values = torch.cat([state[name].flatten() for name in names])
        assert values.min().item() == pytest.approx(measured["min"], rel=0.05, abs=1e-7)
        assert values.max().item() == pytest.approx(measured["max"], rel=0.05, abs=1e-7)
        if len(values) > 1:
            assert values.std().item() == pytest.approx(measured["std"], rel=0.05, abs=1e-7)


def _kind(name):
    return ".".join("N" if part.isdigit() else part for part in name.split("."))
