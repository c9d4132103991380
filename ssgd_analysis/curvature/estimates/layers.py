"""Traces of the diagonal blocks of an operator, all out of the same products."""

import time
from collections.abc import Sequence

import torch

from ssgd_analysis import seeds
from ssgd_analysis.curvature.estimates.deflation import deflation
from ssgd_analysis.curvature.estimates.hutchinson import Hutchinson
from ssgd_analysis.curvature.estimates.probes import BLOCK, rademacher
from ssgd_analysis.curvature.estimates.trace import Trace, estimated
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.operators.sampling import Quotients, Scatter, quotients
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress


def layer_traces(
    operator: Operator,
    blocks: Sequence[slice],
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    probes: int = 32,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> list[Trace]:
    """tr(H_ll) = E[z_l · (H z)_l] for every block l, from one set of probes over all of them.

    The other blocks' part of z adds noise of mean zero, Σ_{m≠l} ‖H_lm‖²_F to a probe's
    variance, and saves a product for each block.

    Args:
        operator: symmetric, shape (P, P).
        blocks: of the rows and columns.
        seed: of the random vectors, by default 0; it picks the stream ``"layer traces"``.
        generator: instead of a seed, on the operator's device, for callers that share streams.
        probes: how many, at least 2.
        deadline: of ``time.monotonic()``; no block of probes is begun that would end after it, but
            the first.
        progress: reports every product.

    Raises:
        InputError: fewer than two probes, or both a seed and a generator.

    Example:
        >>> import torch
        >>> from ssgd_analysis.curvature import DenseOperator, layer_traces
        >>> H = DenseOperator(torch.diag(torch.tensor([2.0, -1.0, 3.0])))
        >>> [found.value for found in layer_traces(H, [slice(0, 2), slice(2, 3)], probes=2)]
        [1.0, 3.0]
    """
    generator = seeds.given_generator(generator, seed, "layer traces", device=operator.device)
    if probes < 2:
        raise InputError(f"the trace needs at least 2 probes for its error, not {probes}")
    progress.start("layers' traces", probes)
    found: list[list[Quotients]] = [[] for _ in blocks]
    scatters: list[list[Scatter]] = [[] for _ in blocks]
    began, spent = time.monotonic(), 0
    while spent < probes:
        count = min(BLOCK, probes - spent)
        now = time.monotonic()
        if deadline is not None and spent and now + (now - began) / spent * count > deadline:
            break
        block = rademacher(operator, count, generator)
        images, parts = quotients(operator, block, blocks)
        for own, part in zip(found, parts, strict=True):
            own.append(part)
        # with the other blocks' part in full, where half of it counts: on the safe side
        for scatter, rows in zip(scatters, blocks, strict=True):
            scatter.append(Scatter.of(block[rows], images[rows]))
        spent += count
        progress.advance(count)
    nothing = deflation(operator, None)
    return [
        estimated(
            Hutchinson(operator, nothing, generator, own, sum(scatter[1:], scatter[0])),
            nothing,
            probes=spent,
            method="hutchinson",
            products=spent,
            stop="probes" if spent == probes else "time",
        )
        for own, scatter in zip(found, scatters, strict=True)
    ]
