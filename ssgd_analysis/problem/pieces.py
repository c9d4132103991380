"""Batches in pieces, where a batch's loss is the mean of the pieces' losses."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.devices import OUT_OF_MEMORY, is_out_of_memory
from ssgd_analysis.problem.batch_loss import BatchLoss, BatchReading

Piece = tuple[Batch, float]  # a part of a batch, and its share of the batch's loss


def parted(
    of: BatchLoss, batch: Batch, count: int, reading: BatchReading, size: int
) -> list[Piece] | Literal[False] | None:
    """One batch in pieces of at most ``size`` examples, each with its share of the batch's loss.

    To be called in evaluation mode, with gradients on.

    Returns:
        ``False`` where the batch is not the mean of its pieces; ``None`` where it can't be cut.
    """
    if size >= count:
        return [(batch, 1.0)]
    try:
        parts = batching.pieces(batch, size, count)
        counts = [of.examples(part) for part in parts]
        with torch.no_grad():
            found = [of.read(p, n) for p, n in zip(parts, counts, strict=True)]
        if reading.exact and not all(part.exact for part in found):
            return None
        weights = [part.weight if reading.exact else part.count for part in found]
        if not math.isclose(math.fsum(weights), reading.weight, rel_tol=1e-9):
            return None
        cut = [(p, w / reading.weight) for p, w in zip(parts, weights, strict=True) if w]
        same = _is_mean(of, batch, cut)
        if same is None:  # the whole does not fit into memory: the pieces' own losses decide
            same = all(
                parted(of, p, n, r, (n + 1) // 2)
                for p, n, r in zip(parts, counts, found, strict=True)
                if n > 1 and r.weight
            )
    except Exception as error:  # of a piece that is no batch: a user's model may raise anything
        if is_out_of_memory(error):
            raise
        return None
    return cut if same else False


def _is_mean(of: BatchLoss, batch: Batch, parts: Sequence[Piece]) -> bool | None:
    """Whether a batch's loss and gradient are the weighted means of its parts'.

    ``None``: not even its loss fits into memory.
    """
    gradient: Tensor | None = None
    try:
        loss, gradient = of.flat(batch)
    except OUT_OF_MEMORY as error:
        if not is_out_of_memory(error):
            raise
        try:
            with torch.no_grad():
                loss = of.batch_loss(batch)
        except OUT_OF_MEMORY as again:
            if not is_out_of_memory(again):
                raise
            return None
    mean, rest, size = 0.0, gradient, 0.0
    for part, share in parts:
        value, slope = of.flat(part)
        mean += share * float(value)
        if rest is not None:
            rest = rest - share * slope
            size += share * float(slope.norm())
    if not of.close(float(loss), mean):
        return False
    return rest is None or float(rest.norm()) <= of.tolerance * size + 1e-300
