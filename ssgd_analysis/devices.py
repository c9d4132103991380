"""Devices by name."""

import re

import torch

from ssgd_analysis.errors import InputError


def resolve_device(name: str) -> str:
    """``auto`` becomes ``cuda`` where there is one, else ``cpu``; others must be there.

    On a GPU float32 is made to mean float32: TF32 convolutions carry ten bits, too few for
    curvature.

    Raises:
        InputError: a device that is not there, or no device at all.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    if not re.fullmatch(r"cuda(:\d+)?", name):
        raise InputError(f"device '{name}' should be auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(name.partition(":")[2] or 0) >= count:
        raise InputError(f"device '{name}' is not there: this machine has {count} CUDA devices")
    torch.backends.cudnn.allow_tf32 = False
    return name
