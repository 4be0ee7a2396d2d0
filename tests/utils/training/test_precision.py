"""bfloat16 is used where the device has instructions for it, and said where it is not."""

import pytest
import torch

from utils.training.precision import autocast, has_bfloat16, mixed_dtype

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["with", "without"])
def instructions(request, monkeypatch):
    """A CPU with or without instructions for bfloat16."""
    found = {"avx512_bf16": request.param, "avx512_bw": True, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    mixed_dtype.cache_clear()
    yield request.param
    mixed_dtype.cache_clear()


def test_bf16_where_the_device_has_it(instructions, capsys):
    assert has_bfloat16(CPU) == instructions
    with autocast(CPU, "bf16"), autocast(CPU, "bf16"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if instructions else torch.float32)
    told = "--amp bf16: this CPU has no bfloat16 instructions; computing in float32 instead"
    assert capsys.readouterr().err.count(told) == (0 if instructions else 1)


def test_auto_says_nothing(instructions, capsys):
    assert mixed_dtype("auto", CPU) == (torch.bfloat16 if instructions else None)
    assert mixed_dtype("off", CPU) is None
    assert mixed_dtype("fp16", CPU) == torch.float16
    assert not capsys.readouterr().err
