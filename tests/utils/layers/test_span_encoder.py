"""Layers both models share: published keys, and what must hold for any input."""

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from utils.layers.span_encoder import (
    MASKED_LOGIT,
    REACH,
    Conv1D,
    FeatureEncoder,
    SeparableConvBlock,
    SpanPredictor,
    WeightedPool,
    for_products,
    initialise,
    mask_logits,
)

KINDS = ("bert", "rnn")


def predictor(kind, drop_rate=0.0):
    torch.manual_seed(0)
    model = SpanPredictor(kind, 16, 4, 20, drop_rate)
    initialise(model)
    return model


def clips(batch=3, units=12):
    x = torch.randn(batch, units, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(batch, units)
    mask[1, 5:] = 0
    return x, mask


def test_a_convolution_of_width_one_is_linear():
    torch.manual_seed(0)
    layer, x = Conv1D(5, 3), torch.randn(2, 7, 5)
    torch.testing.assert_close(layer(x), layer.conv1d(x.transpose(1, 2)).transpose(1, 2))


def test_parts_count_as_if_side_by_side():
    torch.manual_seed(0)
    layer, x = Conv1D(5, 3), torch.randn(2, 7, 5)
    one_for_all = x[:, :1, 4:]
    together = torch.cat((x[..., :4], one_for_all.expand(-1, 7, -1)), 2)
    from_parts = layer(x[..., :1], x[..., 1:4], one_for_all)
    torch.testing.assert_close(from_parts, layer(together))


@pytest.mark.parametrize("units", [1, 3, 20])
def test_separable_convolutions(units):
    torch.manual_seed(0)
    block, x = SeparableConvBlock(6, 0.0), torch.randn(2, units, 6)
    expected = x
    for (depthwise, pointwise), norm in zip(
        block.depthwise_separable_conv, block.layer_norms, strict=True
    ):
        inner = pointwise(depthwise(norm(expected).transpose(1, 2))).transpose(1, 2)
        expected = expected + F.relu(inner)
    torch.testing.assert_close(block(x, torch.zeros(2, units)), expected)


def test_convolutions_reach_no_further_than_their_kernels():
    torch.manual_seed(0)
    block, x = SeparableConvBlock(6, 0.0), torch.randn(1, 40, 6)
    changed = x.clone()
    changed[:, 20] += 1
    mask = torch.ones(1, 40)
    moved = (block(x, mask) != block(changed, mask)).any(-1)[0].nonzero().flatten()
    assert moved.min() >= 20 - REACH and moved.max() <= 20 + REACH


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_pooling_ignores_padding_and_order(batch, tokens, seed):
    torch.manual_seed(seed)
    pool = WeightedPool(4)
    x = torch.randn(batch, tokens, 4)
    lengths = torch.randint(1, tokens + 1, (batch, 1))
    mask = (torch.arange(tokens) < lengths).float()
    pooled = pool(x, mask)
    torch.testing.assert_close(pool(x + 99 * (mask == 0)[..., None], mask), pooled)
    torch.testing.assert_close(pool(x.flip(1), mask.flip(1)), pooled)
    inside = torch.where(mask[..., None] > 0, x, torch.inf)
    assert (pooled >= inside.amin(1) - 1e-5).all()  # a weighted mean


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_float32_and_masked(kind):
    x, mask = clips()
    for logits in predictor(kind)(x, mask):
        assert logits.shape == mask.shape and logits.dtype == torch.float32
        assert (logits[mask == 0] == MASKED_LOGIT).all() and torch.isfinite(logits).all()


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_a_batch_has_no_influence(kind):
    model, (x, mask) = predictor(kind), clips()
    order = torch.tensor([2, 0, 1])
    for first, again in zip(model(x, mask), model(x[order], mask[order]), strict=True):
        torch.testing.assert_close(first[order], again)


def test_lstms_do_not_see_padding():
    model, (x, mask) = predictor("rnn"), clips()
    changed = x + 9 * (mask == 0)[..., None]
    for first, again in zip(model(x, mask), model(changed, mask), strict=True):
        torch.testing.assert_close(first, again)
    for first, alone in zip(model(x, mask), model(x[1:2, :5], mask[1:2, :5]), strict=True):
        torch.testing.assert_close(first[1:2, :5], alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drop_rate", [0.0, 0.3])
def test_every_parameter_has_a_gradient(kind, drop_rate):
    model, (x, mask) = predictor(kind, drop_rate), clips()
    start, end = model(x, mask)
    labels = torch.tensor([1, 2, 3])
    (F.cross_entropy(start, labels) + F.cross_entropy(end, labels)).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        # Some biases move all scores alike, which a softmax does not feel.
        assert parameter.grad.any() or "bias" in name, name


def test_training_drops_and_evaluation_does_not():
    model, (x, mask) = predictor("bert", 0.3), clips()
    torch.manual_seed(1)
    first = model(x, mask)
    assert not torch.equal(model(x, mask)[0], first[0])
    torch.manual_seed(1)
    assert all(map(torch.equal, model(x, mask), first))
    model.eval()
    assert torch.equal(model(x, mask)[0], model(x, mask)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_masked_logits_are_finite_in_any_precision(dtype):
    logits = mask_logits(torch.zeros(1, 2, dtype=dtype), torch.tensor([[1.0, 0.0]]))
    assert logits.tolist() == [[0.0, torch.tensor(MASKED_LOGIT).item()]]
    assert logits.softmax(1).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(("file", "dim", "units"), [("vslnet", 128, 128), ("reler", 256, 600)])
def test_keys_and_shapes_of_both_published_models(golden, file, dim, units):
    schema = json.loads((golden / f"schema_{file}.json").read_text())["state_dict"]
    published = {k: v for k, v in schema.items() if k.startswith("predictor.")}
    with torch.device("meta"):
        model = SpanPredictor("bert", dim, 8, units, 0.2)
    assert {f"predictor.{k}": list(v.shape) for k, v in model.state_dict().items()} == published


def test_only_autocast_changes_the_precision():
    x = torch.randn(3)
    assert for_products(x) is x
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(for_products(x), x.bfloat16())
    with torch.autocast("cpu", enabled=False):
        assert for_products(x) is x


def test_extra_attention_blocks_have_keys_of_their_own():
    plain, extra = (FeatureEncoder(8, 2, 5, 0.0, blocks) for blocks in (0, 2))
    added = set(extra.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) < set(extra.state_dict())
    assert {key.split(".")[0] for key in added} == {"extra_attention_blocks"}


def test_initial_weights():
    model = predictor("rnn")
    layers = [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Linear)]
    assert layers and all((layer.bias == 0).all() for layer in layers)
    for layer in layers:
        fan = sum(layer.weight.shape[:2])
        assert 0 < layer.weight.abs().max() <= (6 / fan) ** 0.5
    assert all(
        map(torch.equal, model.state_dict().values(), predictor("rnn").state_dict().values())
    )
