"""PyTorch and polars, imported at their first use, so that programs start quickly.

Modules that define no layers import them from here, with unevaluated annotations
(`from __future__ import annotations`).
"""

from typing import TYPE_CHECKING, Any


class LazyModule:
    """A module that is imported when one of its attributes is read."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(__import__(self._name), attribute)


if TYPE_CHECKING:
    import polars
    import torch
else:
    polars, torch = LazyModule("polars"), LazyModule("torch")
