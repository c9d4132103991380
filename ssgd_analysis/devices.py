"""Devices by name, how much memory they have, and what running out of it looks like."""

import contextlib
import re
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import torch

from ssgd_analysis.errors import InputError

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError, RuntimeError)


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
        raise InputError(f"device '{name}' does not exist: this machine has {count} CUDA devices")
    torch.backends.cudnn.allow_tf32 = False
    return name


def free_bytes(device: torch.device) -> int:
    """Free memory of a device in bytes; on the CPU within the control group's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, max(0, int(limit) - used)) if limit.isdigit() else free


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; on the CPU torch raises a RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return "not enough memory" in text or "can't allocate memory" in text


def plain_python() -> AbstractContextManager[None]:
    """Compiled models as they were written; nothing to do where the compiler is not even loaded."""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")
