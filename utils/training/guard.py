"""Numbers that go wrong: no optimizer step with a loss or gradient that is not finite.

The check is made where the numbers are and its result read when somebody looks: on a GPU no step
waits for it. Once more steps have gone wrong than are tolerated, no further step changes anything:
the weights are those from before the first step too many.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from utils.training.processes import Processes

NAMED = 3  # clips and parameters in a message
SMALLEST_SCALE = 1.0  # of fp16: gradients that overflow even so are no matter of scaling


class Guard:
    """Lets the optimizer step, or not, and counts the steps that went wrong.

    In mixed precision fp16 too large a gradient is the scaler's business, which skips the step and
    scales less from then on; a loss that is not finite still counts.
    """

    def __init__(self, device: torch.device, tolerated: int, scaler: torch.amp.GradScaler):
        self.tolerated = tolerated
        self._scaler = scaler
        self._wrong = torch.zeros((), device=device)  # steps, up to the first one too many
        self._first = torch.zeros((), dtype=torch.int64, device=device)  # that one

    @property
    def skipped(self) -> int:
        """Steps left out so far; waits for the device."""
        return min(int(self._wrong.item()), self.tolerated)

    @skipped.setter
    def skipped(self, count: int) -> None:
        self._wrong.fill_(count)

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """What to differentiate: a loss that is not to be stepped with has gradients of NaN."""
        fine = loss.detach().isfinite() & (self._wrong <= self.tolerated)
        return self._scaler.scale(loss * torch.where(fine, 1.0, torch.nan))

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        loss: torch.Tensor,
        norm: torch.Tensor,
        step: int,
        share: Callable[[torch.Tensor], None],
    ) -> None:
        """Step with the unscaled gradients, whose norm is given, unless something is wrong.

        Gradients are the same in all processes, a loss is not: `share` takes the maximum over the
        processes in place.
        """
        scaling = self._scaler.is_enabled()
        wrong = (~(loss.detach() if scaling else norm).isfinite()).float()
        if scaling:
            share(wrong)
        open_before = self._wrong <= self.tolerated
        self._wrong += wrong * open_before
        closed = self._wrong > self.tolerated
        self._first = torch.where(open_before & closed, step, self._first)
        if scaling:
            self._scaler.step(optimizer)
            self._scaler.update()
        elif all(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf = torch.maximum(wrong, closed.float())  # its kernel looks there
            optimizer.step()
            del optimizer.found_inf
        elif not (wrong or closed):
            optimizer.step()

    def first_wrong(self, step: int) -> int | None:
        """The first step that was one too many, None if all is well; waits for the device.

        `step` is the last one taken, to blame if fp16 can't be scaled down any further.
        """
        if self._wrong.item() > self.tolerated:
            return int(self._first.item())
        if self._scaler.is_enabled() and self._scaler.get_scale() < SMALLEST_SCALE:
            return step
        return None


def all_finite(model: nn.Module) -> bool:
    """Whether all weights are finite; waits for the device."""
    return bool(torch.stack([p.detach().isfinite().all() for p in model.parameters()]).all())


class Wrong(NamedTuple):
    """What is wrong with a step, as far as this process can see."""

    losses: dict[str, float]
    rows: list[int]  # of its share, those that go wrong by themselves; a few of them
    parameters: list[str]  # whose gradients are not finite


def look_at(
    model: nn.Module,
    losses: Callable[[np.ndarray], dict[str, torch.Tensor]],
    rows: np.ndarray,
    processes: Processes,
) -> Wrong:
    """Repeat a step that went wrong, whole and then by halves of this process's share of its rows.

    `losses` gives those of this process's share of some rows, each time with the same randomness.
    """

    def wrong(some: np.ndarray) -> tuple[dict[str, float], list[str]]:
        model.zero_grad(set_to_none=True)
        found = losses(some)
        found["total"].backward()
        named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
        parameters = [name for name, gradient in named if not gradient.isfinite().all()]
        return {name: value.item() for name, value in found.items()}, parameters

    figures, parameters = wrong(rows)
    alone: list[int] = []
    waiting = [processes.shard(rows)]
    while waiting and len(alone) <= NAMED:
        some = waiting.pop()
        figures_of_some, parameters_of_some = wrong(np.tile(some, processes.size))
        if np.isfinite(figures_of_some["total"]) and not parameters_of_some:
            continue
        if len(some) == 1:
            alone.append(int(some[0]))
        else:
            half = len(some) // 2
            waiting += [some[half:], some[:half]]
    model.zero_grad(set_to_none=True)
    return Wrong(figures, alone, parameters)


def first_few(names: Iterable[str]) -> str:
    """Different names, for a message."""
    different = list(dict.fromkeys(names))
    more = " and more" if len(different) > NAMED else ""
    return (", ".join(different[:NAMED]) or "none") + more
