"""Several processes, one work: ``torchrun`` starts them, each takes a part."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # the others wait while the first one searches for eigenvectors


@dataclass(frozen=True)
class Ranks:
    """This process among those of the same call.

    Args:
        rank: its number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in each of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def once(self, work: Callable[[], T]) -> T:
        """What the first process makes of it, in each of them.

        An error there is raised in all, so that none waits for ever.
        """
        if self.size == 1:
            return work()
        held: list[Any] = [None, None]
        if self.first:
            try:
                held[0] = work()
            except Exception as error:
                held[1] = error
        dist.broadcast_object_list(held, src=0)
        if held[1] is not None:
            raise held[1]
        return held[0]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one exchange.

        Args:
            tensors: of the same shapes in every process, on one device.
        """
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        pieces = flat.split([tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view(tensor.shape))


SINGLE = Ranks()


@contextmanager
def launched() -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, or this one alone.

    Plain values are exchanged by gloo, and so are tensors on the CPU; those on a GPU by NCCL.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "MASTER_ADDR" not in os.environ:
        yield SINGLE
        return
    several = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if several else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), size)
        dist.barrier()  # one that leaves first may abort the others
    finally:
        dist.destroy_process_group()
        gc.collect()  # its threads end here: at the interpreter's own end they may abort it


def local_device(device: str) -> str:
    """The device of this process: of several GPUs each takes its own."""
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return device


def own_device(device: str, ranks: Ranks) -> str:
    """The device of one process of several: each takes its own GPU, whichever was named."""
    if ranks.size == 1 or not device.startswith("cuda"):
        return device
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return f"cuda:{os.environ['LOCAL_RANK']}"
