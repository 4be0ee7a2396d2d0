"""The device a program of its own computes on; training has `distributed`, which shares devices."""

import torch

from utils.errors import UserError, in_brief


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU if there is one.

    Raises:
        UserError: there is no such device on this machine, told before anything is read.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # a known kind may still not be here
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        known = "cpu, cuda or auto" if torch.cuda.is_available() else "cpu or auto"
        raise UserError(
            f"--device {name} is not to be had here ({in_brief(error, 60)}); give {known}"
        ) from None
    return device
