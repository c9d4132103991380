"""Named tensors in a file that is whole or not there."""

from pathlib import Path

import safetensors.torch
from torch import Tensor

from ssgd_analysis.files import write_atomically


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write named tensors; tied ones are written once under each name.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = safetensors.torch.save(whole, metadata)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
