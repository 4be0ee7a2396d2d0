"""Layers both models share: published keys, and what must hold for any input."""

import torch
from torch import nn

from utils.layers.span_encoder import (
    REACH,
    FeatureEncoder,
    SeparableConvBlock,
    SpanPredictor,
    initialise,
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


def test_convolutions_reach_no_further_than_their_kernels():
    torch.manual_seed(0)
    block, x = SeparableConvBlock(6, 0.0), torch.randn(1, 40, 6)
    changed = x.clone()
    changed[:, 20] += 1
    mask = torch.ones(1, 40)
    moved = (block(x, mask) != block(changed, mask)).any(-1)[0].nonzero().flatten()
    assert moved.min() >= 20 - REACH and moved.max() <= 20 + REACH


def test_training_drops_and_evaluation_does_not():
    model, (x, mask) = predictor("bert", 0.3), clips()
    torch.manual_seed(1)
    first = model(x, mask)
    assert not torch.equal(model(x, mask)[0], first[0])
    torch.manual_seed(1)
    assert all(map(torch.equal, model(x, mask), first))
    model.eval()
    assert torch.equal(model(x, mask)[0], model(x, mask)[0])


def test_extra_attention_blocks_have_keys_of_their_own():
    plain, extra = (FeatureEncoder(8, 2, 5, 0.0, blocks) for blocks in (0, 2))
    added = set(extra.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) < set(extra.state_dict())
    assert {key.split(".")[0] for key in added} == {"extra_attention_blocks"}


def test_initial_weights_are_bounded_and_biases_zero():
    model = predictor("rnn")
    layers = [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Linear)]
    assert layers and all((layer.bias == 0).all() for layer in layers)
    for layer in layers:
        fan = sum(layer.weight.shape[:2])
        assert 0 < layer.weight.abs().max() <= (6 / fan) ** 0.5
    assert all(
        map(torch.equal, model.state_dict().values(), predictor("rnn").state_dict().values())
    )
