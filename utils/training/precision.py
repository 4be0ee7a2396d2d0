"""Mixed precision, on devices where it is fast."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from utils.base.errors import warn


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; emulation is many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(has for name, has in capabilities.items() if name.endswith("bf16"))


@cache
def mixed_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype of `--amp` on the device, None for float32; warns once if bf16 is not supported."""
    if amp == "fp16":
        return torch.float16
    if amp == "off" or has_bfloat16(device):
        return None if amp == "off" else torch.bfloat16
    if amp == "bf16":
        name = "CPU" if device.type == "cpu" else "GPU"
        warn(f"--amp bf16: this {name} has no bfloat16 instructions; computing in float32 instead")
    return None


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """The context in which a model computes."""
    dtype = mixed_dtype(amp, device)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def make_scaler(device: torch.device, amp: str) -> torch.amp.GradScaler:
    """A scaler that skips steps with non-finite gradients, and scales losses in fp16 only."""
    return torch.amp.GradScaler(device.type, init_scale=2.0**16 if amp == "fp16" else 1.0)


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices in TF32 on a GPU: in training only, predictions stay in float32."""
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
