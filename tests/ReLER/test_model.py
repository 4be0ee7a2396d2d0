"""ReLER's model against the published one's numbers, and where that one fails."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ReLER.model import ReLER
from ReLER.options import SCALES, ModelOptions, Options
from ReLER.weights import trained_options
from utils.evaluation.decoding import best_spans
from utils.layers.span_encoder import WeightedPool

SMALL = dict(  # noqa: C408
    hidden_dim=16,
    max_v_l=40,
    v_intermediate_size=32,
    intermediate_size=32,
    contrastive_hdim=8,
)


def small_model(**change):
    """A model of random weights that reads `small_inputs`."""
    torch.manual_seed(0)
    return ReLER(ModelOptions(**SMALL | change), video_dim=6, text_dim=5)


def small_inputs(lengths, tokens=4, seed=0):
    """Random video and text for the SMALL model, clips of the given numbers of units."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).float()
    video = torch.randn(*mask.shape, 6, generator=generator) * mask[..., None]
    text = torch.randn(len(lengths), tokens, 5, generator=generator)
    text_mask = torch.ones(len(lengths), tokens)
    text_mask[0, 1:] = 0
    return video, mask, text, text_mask


@pytest.mark.parametrize("parts", SCALES)
def test_outputs_equal_the_published_ones(published_model, inputs, reference, parts):
    outputs = published_model(*inputs, parts)
    values = {
        "start_logits": outputs.start_logits,
        "end_logits": outputs.end_logits,
        "highlight_scores": outputs.highlight_logits.sigmoid(),
        "saliency_scores": outputs.saliency_scores,
        "NPM_scores": outputs.part_logits.sigmoid(),
        "scale_mask": outputs.part_mask,
        "proj_txt_mem": outputs.projected_text,
        "proj_vid_mem": outputs.projected_video,
    }
    for name, value in values.items():
        expected = reference[f"N{parts}/{name}"]
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-5, msg=name)


@pytest.mark.parametrize("width", [256, 2304])
def test_state_dict_has_the_published_keys_and_shapes(golden, width):
    schema = json.loads((golden / "schema_reler.json").read_text())
    expected = schema["state_dict"] | schema["differences"][f"feature{width}+clip512+tef2"]
    with torch.device("meta"):
        state = ReLER(ModelOptions(), width + 514).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == expected


def test_every_tensor_starts_as_published():
    torch.manual_seed(0)
    model = ReLER(ModelOptions(), 2304 + 514)
    modules = dict(model.named_modules())
    for name, value in model.state_dict().items():
        module = modules[name.rpartition(".")[0]]
        if isinstance(module, nn.LayerNorm):
            assert (value == float(name.endswith("weight"))).all(), name
            continue
        if isinstance(module, nn.Embedding):  # positions
            assert abs(value.std() - 1) < 0.02, name
            continue
        fan_in = module.weight[0].numel()
        bound = fan_in**-0.5
        in_cross_layer = name.startswith("cross_self_encoder.") and value.ndim > 1
        if in_cross_layer or isinstance(module, WeightedPool):
            bound = (6 / sum(value.shape)) ** 0.5
        assert 0 < value.abs().max() <= bound, name
        if value.numel() >= 64:
            spread = bound / 3**0.5  # of a uniform distribution
            assert abs(value.std() / spread - 1) < 3 / value.numel() ** 0.5, name


def options_of(opt, folder):
    return trained_options(folder / "model_1.t7", opt, {"task": "nlq", "fv": "egovlp"})


def test_default_options_are_the_released_ones(golden, tmp_path):
    schema = json.loads((golden / "schema_reler.json").read_text())
    released = schema["option_defaults_of_released_scripts"]
    options = Options(task="nlq", fv="egovlp")
    assert options_of(released, tmp_path) == dataclasses.replace(options, mode="val")


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(2, 6))
def test_every_scale_works_at_every_length(lengths, parts):
    model = small_model()
    video, mask, text, text_mask = small_inputs(lengths)
    outputs = model(video, mask, text, text_mask, parts)
    assert outputs.part_logits.shape == outputs.part_mask.shape == (len(lengths), parts)
    size = -(-max(lengths) // parts)
    filled = torch.tensor([[part * size < n for part in range(parts)] for n in lengths])
    assert (outputs.part_mask >= filled.float()).all()
    valid = mask.bool()
    assert (outputs.start_logits[~valid] < -1e29).all()
    assert (outputs.highlight_logits[~valid] < -1e29).all()
    sum(
        x[valid].sum() for x in (outputs.start_logits, outputs.end_logits, outputs.highlight_logits)
    ).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(x).all() for x in (*gradients, outputs.part_logits))

    spans, scores = model.eval().predict_scales(video, mask, text, text_mask, max(lengths))
    assert torch.isfinite(scores).all()
    assert (spans >= 0).all()
    assert (spans[:, 0, 0] <= spans[:, 0, 1]).all()
    assert (spans[:, 0, 1] < torch.tensor(lengths)).all()


@pytest.mark.parametrize("lengths", [[70, 3], [90, 97], [1, 1]])
def test_padding_that_is_left_out_changes_nothing(lengths):
    """Weights of a size at which convolutions carry padding far into the clips."""
    model = small_model(max_v_l=160).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    video, mask, text, text_mask = small_inputs([*lengths, 160])
    batch = video[:2], mask[:2], text[:2], text_mask[:2]
    for parts in SCALES:
        outputs = model(*batch, parts)
        expected, best = best_spans(outputs.start_logits, outputs.end_logits, 5)
        spans, scores = model.predict_scales(*batch, max(lengths), scales=(parts,))
        torch.testing.assert_close(scores, best, rtol=1e-3, atol=0)
        assert torch.equal(spans[:, 0], expected[:, 0])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"pre_norm": True},
        {"n_input_proj": 1},
        {"n_input_proj": 3},
        {"num_cross_encoder_layers": 1},
    ],
    ids=str,
)
def test_every_shape_trains_all_that_it_reads(change):
    """Distributed training would wait in vain for a trained parameter without a gradient."""
    model, batch = small_model(**change).train(), small_inputs([40, 7])
    outputs, valid = model(*batch, 3), batch[1] > 0
    masked = (outputs.start_logits, outputs.end_logits, outputs.highlight_logits)
    whole = (
        outputs.saliency_scores,
        outputs.part_logits,
        outputs.projected_video,
        outputs.projected_text,
    )
    sum([x[valid].sum() for x in masked] + [x.sum() for x in whole]).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained.values())
