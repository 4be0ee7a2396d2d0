"""PyTorch and polars, imported when first used, so that programs start without them.

A module that defines no layers takes them from here, and has its annotations unevaluated
(`from __future__ import annotations`).
"""

from typing import TYPE_CHECKING, Any


class LazyModule:
    """Stands for a module, and imports it when an attribute is wanted."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(__import__(self._name), attribute)


if TYPE_CHECKING:
    import polars
    import torch
else:
    polars, torch = LazyModule("polars"), LazyModule("torch")
