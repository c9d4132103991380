"""All random states that a training step may draw from."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ssgd_analysis import seeds


def capture() -> dict[str, Any]:
    """Python's, numpy's and torch's global states (every GPU's too), as tensors and values."""
    state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, *rest = state
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *map(float, rest)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore(state: dict[str, Any]) -> None:
    """Set the global states to what :func:`capture` found."""
    kind, keys, position, has_gauss, gauss = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state(  # noqa: NPY002
        (kind, keys.numpy().astype(np.uint32), int(position), int(has_gauss), gauss)
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global generators seeded inside, for initial weights and dropout; given back after."""
    before = capture()
    _seed(seed)
    try:
        yield
    finally:
        restore(before)


def part(seed: int, rank: int, epoch: int) -> None:
    """Of processes that share passes, all but the first draw dropout of their own, by the epoch.

    Args:
        seed: of the run.
        rank: of the process; the first goes on with its own state.
        epoch: that begins.
    """
    if rank:
        _seed(seeds.derive(seed, "rank", rank, epoch))


def _seed(seed: int) -> None:
    random.seed(seeds.derive(seed, "python"))
    np.random.seed(seeds.derive(seed, "numpy") % 2**32)  # noqa: NPY002
    torch.manual_seed(seeds.derive(seed, "torch"))
