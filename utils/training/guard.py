"""Detect numbers that are not finite, on the device and without waiting for it."""

import torch
from torch import nn

SMALLEST_SCALE = 1.0  # of fp16


class FirstNonFinite:
    """The first step whose loss or gradient was not finite, and its losses."""

    def __init__(self, device: torch.device):
        self._step = torch.full((), -1, device=device)
        self._losses: dict[str, torch.Tensor] = {}

    def note(self, step: int, losses: dict[str, torch.Tensor], checked: torch.Tensor) -> None:
        """Check a step: the scalar `checked` is finite if its loss and gradients are."""
        is_first = (self._step < 0) & ~checked.detach().isfinite()
        self._step = torch.where(is_first, step, self._step)
        noted = self._losses or losses
        self._losses = {k: torch.where(is_first, v.detach(), noted[k]) for k, v in losses.items()}

    def step(self) -> int:
        """The step's number, -1 if there is none; waits for the device."""
        return int(self._step.item())

    def losses(self) -> dict[str, float]:
        """The step's losses; waits for the device."""
        return {name: value.item() for name, value in self._losses.items()}


def clip_gradients(model: nn.Module, largest: float) -> torch.Tensor:
    """Scale gradients down to a norm of at most `largest`; returns their norm before that.

    If the norm overflows, all gradients become NaN, and the scaler skips the step.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    finite_norm = torch.where(norm.isfinite(), norm, torch.nan)
    nn.utils.clip_grads_with_norm_(parameters, largest, finite_norm)
    return norm


def all_finite(model: nn.Module) -> bool:
    """Whether all weights are finite; waits for the device."""
    return bool(torch.stack([p.detach().isfinite().all() for p in model.parameters()]).all())
