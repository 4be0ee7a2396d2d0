"""Muon: steps of the same length in every direction, as PyTorch's own for matrices."""

import torch

from GroundNLQ.muon import step_matrices

SHAPES = [(8, 6, 1), (8, 6, 1), (6, 5, 3)]


def trained(gradients):
    """Weights after a step by each of the gradients, and their optimizer."""
    weights = [torch.nn.Parameter(start.clone()) for start in drawn(0)]
    optimizer = torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1)
    optimizer.register_step_pre_hook(step_matrices)
    for each in gradients:
        for weight, gradient in zip(weights, each, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
        assert all(weight.grad is None for weight in weights)
    return weights, optimizer


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def test_steps_are_those_of_pytorch():
    gradients = [drawn(seed) for seed in range(1, 6)]
    weights, _ = trained(gradients)
    for number, weight in enumerate(weights):
        same = torch.nn.Parameter(drawn(0)[number].flatten(1))
        # Its steps are scaled to 0.2 of the rate, and computed in bfloat16.
        optimizer = torch.optim.Muon(
            [same], lr=0.05, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
        )
        for each in gradients:
            same.grad = each[number].flatten(1)
            optimizer.step()
        moved = (same - drawn(0)[number].flatten(1)).abs().mean()
        assert (weight.flatten(1) - same).abs().max() < 0.1 * moved


def test_a_gradient_that_is_not_finite_changes_nothing_but_by_decay():
    wrong = [torch.full(shape, torch.nan) for shape in SHAPES]
    weights, optimizer = trained([drawn(1), wrong])
    before, _ = trained([drawn(1)])
    for weight, old in zip(weights, before, strict=True):
        torch.testing.assert_close(weight, old * (1 - 0.01 * 0.1))
        assert optimizer.state[weight]["momentum"].isfinite().all()


def test_other_weights_are_left_to_adamw():
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in [(2, 8, 3), (8, 1, 3)]]
    optimizer = torch.optim.AdamW(weights, lr=0.01)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    step_matrices(optimizer)
    assert all((weight == 1).all() and weight.grad is not None for weight in weights)
