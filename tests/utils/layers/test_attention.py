"""Attention against itself written out step by step, with the same draws of dropout."""

import pytest
import torch

from utils.layers import attention
from utils.layers.attention import attend
from utils.layers.dropout import keep_mask

SHAPES = [(3, 5, 7, 2, 4), (2, 9, 9, 1, 8), (4, 40, 6, 4, 16), (1, 1, 1, 2, 2)]  # B, L, S, H, E


def draw(batch, length, positions, dim, seed=0):
    """Random query, key and value that take gradients, and a bias that masks the last half."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, length, dim, generator=generator, requires_grad=True)
    key, value = (
        torch.randn(batch, positions, dim, generator=generator, requires_grad=True)
        for _ in range(2)
    )
    bias = torch.zeros(batch, positions)
    bias[0, (positions + 1) // 2 :] = -1e30
    return query, key, value, bias


def plain(query, key, value, bias, heads, drop_rate=0.0):
    """Head by head."""
    factors = 1.0
    if drop_rate:
        shape = torch.Size([len(query), heads, query.shape[1], key.shape[1]])
        factors = keep_mask(shape, drop_rate, torch.float32).unbind(1)
    outputs = []
    for head in range(heads):
        q, k, v = (x.chunk(heads, 2)[head] for x in (query, key, value))
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + bias[:, None]).softmax(2)
        outputs.append(weights * (factors[head] if drop_rate else 1.0) @ v)
    return torch.cat(outputs, 2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("drop_rate", [0.0, 0.3])
def test_outputs_and_gradients_are_those_of_plain_attention(shape, drop_rate):
    batch, length, positions, heads, width = shape
    *inputs, bias = draw(batch, length, positions, heads * width)
    results = []
    for version in (attend, plain):
        torch.manual_seed(5)
        output = version(*inputs, bias, heads, drop_rate)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        results.append((output, *torch.autograd.grad(output, inputs, weights)))
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("at_once", [1, 100])
def test_heads_done_apart_and_together_drop_as_many(monkeypatch, at_once):
    query, key, value, bias = (x.detach() for x in draw(4, 8, 5, 8))
    monkeypatch.setattr(attention, "WEIGHTS_AT_ONCE", at_once)
    torch.manual_seed(0)
    outputs = torch.stack([attend(query, key, value, bias, 2, 0.2) for _ in range(1000)])
    error = outputs.std(0) / len(outputs) ** 0.5
    exact = attend(query, key, value, bias, 2, 0.0)
    assert ((outputs.mean(0) - exact).abs() <= 5 * error + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_in_and_gradients_go_back(dtype):
    *inputs, bias = draw(2, 4, 6, 8)
    half = [x.detach().to(dtype).requires_grad_() for x in inputs]
    with torch.autocast("cpu", dtype):
        torch.manual_seed(0)
        output = attend(*half, bias, 2, 0.2)
    assert output.dtype == dtype
    gradients = torch.autograd.grad(output.float().square().sum(), half)
    torch.manual_seed(0)
    exact = attend(*inputs, bias, 2, 0.2)
    torch.testing.assert_close(output.float(), exact, rtol=0.03, atol=0.03)
    for gradient, expected in zip(
        gradients, torch.autograd.grad(exact.square().sum(), inputs), strict=True
    ):
        assert gradient.dtype == dtype
        largest = max(1.0, float(expected.abs().max()))
        assert (gradient.float() - expected).abs().max() < 0.03 * largest
