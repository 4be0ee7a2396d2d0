"""Muon, an optimizer for matrices (Jordan et al., 2024), beside AdamW for all other weights.

AdamW follows what the gradients of many samples share: verbs are learned long before the objects
that few queries name. Muon's step has the same length in every direction of a matrix.
"""

from collections import defaultdict

import torch

MOMENTUM = 0.95
COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the iteration that makes a matrix orthogonal
ITERATIONS = 5
LEAST_NORM = 1e-7
OUTPUTS = 2  # of the layers that give logits and offsets, which AdamW trains


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """(N, R, C) -> (N, R, C) with the same singular vectors, and singular values of about 1."""
    first, second, third = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + LEAST_NORM)
    for _ in range(ITERATIONS):
        product = x @ x.mT
        x = first * x + (second * product + third * product @ product) @ x
    return x.mT if tall else x


@torch.no_grad()
def step_matrices(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Step the matrices of the optimizer's first group, and take away their gradients.

    A hook to be called before the optimizer's own step. The entries of a matrix change by the
    learning rate in the root mean square. Gradients that are not finite change nothing.
    """
    group = optimizer.param_groups[0]
    alike = defaultdict(list)
    for weight in group["params"]:
        if weight.grad is not None and weight.shape[0] > OUTPUTS and weight.shape[1] > 1:
            alike[weight.shape].append(weight)
    for weights in alike.values():
        gradients = torch.stack([weight.grad for weight in weights])
        momenta = [_momentum(optimizer, weight) for weight in weights]
        before = torch.stack(momenta)
        usable = gradients.isfinite().all()
        after = torch.where(usable, before.lerp(gradients, 1 - MOMENTUM), before)
        steps = orthogonal(gradients.lerp(after, MOMENTUM).flatten(2))
        steps = torch.where(usable, steps * max(steps.shape[1:]) ** 0.5, 0.0)
        torch._foreach_copy_(momenta, list(after))
        for weight, step in zip(weights, steps, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.sub_(step.view_as(weight), alpha=group["lr"])
            weight.grad = None


def _momentum(optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> torch.Tensor:
    state = optimizer.state[weight]
    if not state:
        state["momentum"] = torch.zeros_like(weight)
        state["step"] = torch.zeros(())  # AdamW reads it of each state that it loads
    return state["momentum"]
