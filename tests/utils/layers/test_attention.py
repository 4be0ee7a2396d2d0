"""Attention with cheap dropout against attention written down, dropping the same weights."""

import pytest
import torch

from utils.layers import attention
from utils.layers.attention import attend
from utils.layers.dropout import keep_bits, keep_scale

SHAPES = [  # B, L, S, H, D
    (3, 5, 7, 2, 8),
    (9, 64, 40, 8, 32),
    (1, 1, 1, 1, 4),
    (5, 1, 3, 2, 4),
]


def draw(batch, length, places, width):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(batch, n, width, generator=generator, requires_grad=True)
        for n in (length, places, places)
    )
    there = torch.rand(batch, places, generator=generator) > 0.3
    there[:, 0] = True
    return query, key, value, ~there * -1e30


def plain(query, key, value, bias, heads, factors):
    """Everything at once; `factors` (B, H, L, S) multiply the weights."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + bias[:, None, None]
    return (scores.softmax(-1) * factors @ value).transpose(1, 2).flatten(2)


def same_draws(shape, drop_rate, seed):
    """The factors that `attend` uses after `torch.manual_seed(seed)`, part by part."""
    batch, length, places, heads, _ = shape
    factors = torch.empty(batch, heads, length, places)
    blank = torch.empty(batch, length, heads, 1), torch.empty(batch, places, heads, 1)
    torch.manual_seed(seed)
    for part in attention._parts(*blank):
        place = factors[part]
        count = torch.Size([place.shape[0] * place.shape[1], length, places])
        place.copy_(keep_bits(count, drop_rate).view_as(place) * keep_scale(drop_rate))
    return factors


def check_same(mine, theirs, inputs):
    """Both outputs, and their gradients with respect to the inputs."""
    torch.testing.assert_close(mine, theirs)
    weights = torch.randn(mine.shape, generator=torch.Generator().manual_seed(1))
    for own, other in zip(
        torch.autograd.grad(mine, inputs, weights),
        torch.autograd.grad(theirs, inputs, weights),
        strict=True,
    ):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("at_once", [1, 1 << 12, 1 << 18])  # a head, some samples, everything
def test_outputs_and_gradients(monkeypatch, shape, at_once):
    monkeypatch.setattr(attention, "WEIGHTS_AT_ONCE", at_once)
    *inputs, bias = draw(*shape[:3], shape[4])
    factors = same_draws(shape, 0.3, seed=5)
    torch.manual_seed(5)
    mine = attend(*inputs, bias, shape[3], 0.3)
    theirs = plain(*inputs, bias, shape[3], factors)
    check_same(mine, theirs, inputs)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_dropout(shape):
    *inputs, bias = draw(*shape[:3], shape[4])
    torch.testing.assert_close(
        attend(*inputs, bias, shape[3], 0.0), plain(*inputs, bias, shape[3], 1.0)
    )


@pytest.mark.parametrize("drop_rate", [0.0, 0.2])
def test_what_is_masked_has_no_influence(drop_rate):
    query, key, value, bias = draw(4, 6, 9, 8)
    masked = (bias < 0)[..., None]
    found = []
    for noise in (0.0, 50.0):
        torch.manual_seed(2)
        found.append(
            attend(query, key + noise * masked, value + noise * masked, bias, 2, drop_rate)
        )
    torch.testing.assert_close(*found)


def test_dropping_keeps_the_mean():
    query, key, value, bias = (x.detach() for x in draw(2, 4, 12, 8))
    torch.manual_seed(0)
    found = torch.stack([attend(query, key, value, bias, 2, 0.2) for _ in range(3000)])
    exact = attend(query, key, value, bias, 2, 0.0)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - exact).abs() <= 5 * error + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_in_and_gradients_go_back(dtype):
    *inputs, bias = draw(2, 4, 6, 8)
    half = [x.detach().to(dtype).requires_grad_() for x in inputs]
    with torch.autocast("cpu", dtype):
        torch.manual_seed(0)
        out = attend(*half, bias, 2, 0.2)
    out.float().sum().backward()
    torch.manual_seed(0)
    torch.testing.assert_close(out.float(), attend(*inputs, bias, 2, 0.2), rtol=0.02, atol=0.02)
    assert all(x.grad.dtype == dtype and torch.isfinite(x.grad).all() for x in half)


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_gradients_are_near_those_of_float32(shape):
    *inputs, bias = draw(*shape[:3], shape[4] * shape[3])
    low = [x.detach().bfloat16().requires_grad_() for x in inputs]
    high = [x.detach().float().requires_grad_() for x in low]
    gradients = []
    for each in (low, high):
        torch.manual_seed(3)
        out = attend(*each, bias, shape[3], 0.2)
        assert out.dtype == each[0].dtype
        gradients.append(torch.autograd.grad(out.float().square().sum(), each))
    for own, exact in zip(*gradients, strict=True):
        assert (own.float() - exact).abs().max() < 0.03 * max(1.0, float(exact.abs().max()))


@pytest.mark.parametrize("shape", [*SHAPES, (2, 50, 40, 4, 16)])
@pytest.mark.parametrize("at_once", [1, 1 << 12, 1 << 20])
def test_inference_in_bfloat16(monkeypatch, shape, at_once):
    monkeypatch.setattr(attention, "WEIGHTS_AT_ONCE", at_once)
    *inputs, bias = (x.detach() for x in draw(*shape[:3], shape[4] * shape[3]))
    low = [x.bfloat16() for x in inputs]
    with torch.inference_mode():
        assert attention._is_plain_bfloat16(low[0], 0.0)
        found = attend(*low, bias, shape[3], 0.0)
    assert found.dtype == torch.bfloat16
    exact = plain(*(x.float() for x in low), bias, shape[3], 1.0)
    torch.testing.assert_close(found.float(), exact, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("shape", [(3, 64, 12, 2, 8), (2, 40, 1, 4, 16), (1, 33, 32, 8, 64)])
def test_many_to_few_without_dropout(shape):
    """Done with the many in the last dimension, to the same effect."""
    *inputs, bias = draw(*shape[:3], shape[4])
    assert attention._is_to_few(*inputs[:2], 0.0)
    mine = attend(*inputs, bias, shape[3], 0.0)
    theirs = plain(*inputs, bias, shape[3], 1.0)
    check_same(mine, theirs, inputs)


def test_many_to_few_where_all_is_masked():
    """As with PyTorch's own, a sample without anything to attend to is attended to evenly."""
    *inputs, bias = draw(2, 40, 6, 8)
    bias = torch.full_like(bias, -10_000.0)
    found = attend(*inputs, bias, 2, 0.0)
    torch.testing.assert_close(found, plain(*inputs, bias, 2, 1.0), atol=1e-3, rtol=1e-3)
