"""Linear layers that read the same, done as one.

Under autocast each would cast its input anew, and each cast has a gradient of its own.
"""

from typing import Protocol

import torch
import torch.nn.functional as F


class Linear(Protocol):
    """Anything with the weight (outputs, inputs) and the bias (outputs,) of a linear layer."""

    @property
    def weight(self) -> torch.Tensor: ...
    @property
    def bias(self) -> torch.Tensor: ...


def for_products(x: torch.Tensor) -> torch.Tensor:
    """`x` in the precision that autocast computes matrix products in."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def joint(x: torch.Tensor, *layers: Linear) -> tuple[torch.Tensor, ...]:
    """What each layer makes of `x`: (..., inputs) -> (..., outputs) each, parts of one tensor."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    return F.linear(x, weight, bias).split([len(layer.bias) for layer in layers], -1)
