"""All random states that a training step may draw from."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ssgd_analysis import seeds

log = logging.getLogger(__name__)


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
    """Set the global states to what :func:`capture` found; of GPUs, those there are."""
    kind, keys, position, has_gauss, gauss = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state(  # noqa: NPY002
        (kind, keys.numpy().astype(np.uint32), int(position), int(has_gauss), gauss)
    )
    torch.set_rng_state(state["torch"])
    for device, own in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(own, device)


def resume(state: dict[str, Any], device: str) -> None:
    """Set the global states to those of another process, which may have used other GPUs.

    Warns, of a run on a GPU, where their number differs: one without a state of its own draws
    other numbers, and one of the same number may be another one.

    Args:
        state: of :func:`capture` there.
        device: that the run goes on with.
    """
    restore(state)
    saved, here = len(state["cuda"]), torch.cuda.device_count()
    if torch.device(device).type == "cuda" and saved != here:
        remedy = f"make {saved} visible (CUDA_VISIBLE_DEVICES)" if saved else "use --device cpu"
        log.warning(
            "the run was saved with %d GPUs and this machine shows %d, so dropout and other random"
            " layers will draw different numbers; to continue exactly, %s",
            saved,
            here,
            remedy,
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global generators seeded inside, for initial weights and dropout; given back after."""
    before = capture()
    set_seed(seed)
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
        set_seed(seeds.derive(seed, "rank", rank, epoch))


def set_seed(seed: int) -> None:
    """Seed the global generators, for good."""
    random.seed(seeds.derive(seed, "python"))
    np.random.seed(seeds.derive(seed, "numpy") % 2**32)  # noqa: NPY002
    torch.manual_seed(seeds.derive(seed, "torch"))
