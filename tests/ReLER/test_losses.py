"""ReLER's losses and gradients against the published ones; shards of a batch; hard cases."""

import json

import pytest
import torch

from ReLER.losses import Targets, contrastive_loss, losses, part_labels
from ReLER.model import Outputs
from ReLER.options import SCALES, LossOptions


def published_targets(reference, parts):
    """Labels of the three published samples."""
    return Targets(
        reference["start_labels"],
        reference["end_labels"],
        reference["highlight_labels"],
        reference["saliency_pos"],
        reference["saliency_neg"],
        float(reference["video_mask"].sum()),
        float(reference[f"N{parts}/scale_mask"].sum()),
    )


def published_losses(reference, parts):
    """Ours name -> the published value."""
    names = {
        "start_end": "loss_start_end",
        "highlight": "loss_highlight",
        "saliency": "loss_saliency",
        "NPM": "loss_NPM",
        "contrastive": "loss_video_frame_contrastive",
        "total": "total_loss",
    }
    return {ours: reference[f"N{parts}/{theirs}"] for ours, theirs in names.items()}


@pytest.mark.parametrize("parts", SCALES)
def test_losses_equal_the_published_ones(published_model, inputs, reference, parts):
    outputs = published_model(*inputs, parts)
    found = losses(outputs, published_targets(reference, parts), inputs[1], LossOptions())
    expected = published_losses(reference, parts)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=0, msg=name)


def test_gradients_equal_the_published_ones(published_model, inputs, reference):
    outputs = published_model(*inputs, 3)
    losses(outputs, published_targets(reference, 3), inputs[1], LossOptions())["total"].backward()
    for name, parameter in published_model.named_parameters():
        expected = reference[f"grad_N3/{name}"]
        if parameter.grad is None:
            assert not parameter.requires_grad
            assert not expected.any(), name
            continue
        # Some gradients (of a bias under a softmax) are 0 but for rounding.
        tolerance = 1e-4 * expected.abs().max() + 1e-6
        assert (parameter.grad - expected).abs().max() <= tolerance, name


def test_part_labels_equal_the_published_ones(golden, reference):
    for parts in SCALES:
        labels = part_labels(reference["start_labels"], reference["end_labels"], 48, parts)
        assert torch.equal(labels.long(), reference[f"N{parts}/NPM_labels"])
    for start, end, units, parts, expected in json.loads((golden / "spans.json").read_text())[
        "npm_labels"
    ]["rows"]:
        labels = part_labels(torch.tensor([start]), torch.tensor([end]), units, parts)
        assert labels[0].tolist() == expected


def test_weights_and_constants_have_their_effect(published_model, inputs, reference):
    outputs = published_model(*inputs, 2)
    targets = published_targets(reference, 2)
    plain = losses(outputs, targets, inputs[1], LossOptions())
    names = {
        "lw_start_end": "start_end",
        "lw_highlight": "highlight",
        "lw_saliency": "saliency",
        "lw_npm": "NPM",
        "video_frame_contrastive_loss_coef": "contrastive",
    }
    for option, name in names.items():
        without = losses(outputs, targets, inputs[1], LossOptions(**{option: 0.0}))
        weight = getattr(LossOptions(), option)
        torch.testing.assert_close(without["total"], plain["total"] - weight * plain[name])
    for option, name in (("saliency_margin", "saliency"), ("temperature", "contrastive")):
        other = losses(outputs, targets, inputs[1], LossOptions(**{option: 0.5}))
        assert abs(other[name] - plain[name]) > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_stays_near_float32_and_losses_are_computed_in_it(
    published_model, inputs, reference, dtype
):
    targets, inside = published_targets(reference, 5), inputs[1] > 0
    exact = published_model(*inputs, 5)
    with torch.autocast("cpu", dtype):
        outputs = published_model(*inputs, 5)
        found = losses(outputs, targets, inputs[1], LossOptions())
    assert (outputs.start_logits - exact.start_logits)[inside].abs().max() < 0.1
    assert (outputs.part_logits - exact.part_logits).sigmoid().sub(0.5).abs().max() < 0.02
    alone = losses(Outputs(*(x.float() for x in outputs)), targets, inputs[1], LossOptions())
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=0, msg=name)
    found["total"].backward()
    gradients = [p.grad for p in published_model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_window_that_fills_its_clip_contrasts_with_nothing(published_model, inputs, reference):
    video, mask, text, text_mask = (x[2:].clone().requires_grad_() for x in inputs)
    outputs = published_model(video, mask.detach(), text, text_mask.detach(), 2)
    targets = Targets(*(x[2:] for x in published_targets(reference, 2)[:5]), 29.0, 2.0)
    loss = contrastive_loss(outputs, targets, mask.detach(), 0.07)
    assert loss.item() == 0
    loss.backward()
    assert torch.isfinite(video.grad).all()


def test_one_unit_is_enough(published_model, inputs):
    one = torch.ones(1, 1)
    outputs = published_model(inputs[0][:1, :1], one, inputs[2][:1], inputs[3][:1], 6)
    none = torch.zeros(1, 2, dtype=torch.long)
    targets = Targets(none[:, 0], none[:, 1], one, none, none, 1.0, 1.0)
    found = losses(outputs, targets, one, LossOptions())
    assert all(torch.isfinite(value) for value in found.values())
    found["total"].backward()
    assert all(
        torch.isfinite(p.grad).all() for p in published_model.parameters() if p.grad is not None
    )
