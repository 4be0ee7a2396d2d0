"""Numbers that go wrong, noticed on the device and read when something is read anyway."""

import torch
from torch import nn

SMALLEST_SCALE = 1.0  # of fp16


class FirstWrong:
    """The first step whose loss or gradient was not finite, with its losses; no step waits."""

    def __init__(self, device: torch.device):
        self._step = torch.full((), -1, device=device)
        self._losses: dict[str, torch.Tensor] = {}

    def note(self, step: int, losses: dict[str, torch.Tensor], checked: torch.Tensor) -> None:
        """Look at a step; `checked` is a scalar that is finite if all is well."""
        first = (self._step < 0) & ~checked.detach().isfinite()
        self._step = torch.where(first, step, self._step)
        before = self._losses or losses
        self._losses = {k: torch.where(first, v.detach(), before[k]) for k, v in losses.items()}

    def step(self) -> int:
        """The number of that step, or -1; waits for the device."""
        return int(self._step.item())

    def losses(self) -> dict[str, float]:
        """Its losses; waits for the device."""
        return {name: value.item() for name, value in self._losses.items()}


def clip_gradients(model: nn.Module, largest: float) -> torch.Tensor:
    """Scale gradients down to a norm of at most `largest`; returns the norm they had.

    If that overflows they become NaN, and the scaler leaves the step out.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    usable = torch.where(norm.isfinite(), norm, torch.nan)
    nn.utils.clip_grads_with_norm_(parameters, largest, usable)
    return norm


def all_finite(model: nn.Module) -> bool:
    """Whether all weights are finite; waits for the device."""
    return bool(torch.stack([p.detach().isfinite().all() for p in model.parameters()]).all())
