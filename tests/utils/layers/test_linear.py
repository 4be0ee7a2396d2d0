"""Layers done as one product find what they find apart."""

import pytest
import torch
from torch import nn

from utils.layers.dropout import for_products, joint
from utils.layers.span_encoder import Conv1D


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_joint_layers_find_what_they_find_apart(kind):
    torch.manual_seed(0)
    layers = [kind(6, outputs) for outputs in (4, 1, 3)]
    x = torch.randn(2, 5, 6, requires_grad=True)
    parameters = [x, *(p for layer in layers for p in layer.parameters())]
    found = joint(x, *layers)
    apart = [layer(x) for layer in layers]
    gradients = []
    for outputs in (found, apart):
        total = sum(y.sin().sum() * (i + 1) for i, y in enumerate(outputs))
        gradients.append(torch.autograd.grad(total, parameters))
    for own, other in zip([*found, *gradients[0]], [*apart, *gradients[1]], strict=True):
        torch.testing.assert_close(own, other)


def test_only_autocast_changes_the_precision():
    x = torch.randn(3)
    assert for_products(x) is x
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(for_products(x), x.bfloat16())
    with torch.autocast("cpu", enabled=False):
        assert for_products(x) is x
