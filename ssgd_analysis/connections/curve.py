"""A curve between two checkpoints, trained to stay low."""

import math
from collections.abc import Callable, Iterable

import torch

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.connections.path import WeightPath
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.seeds import generator
from ssgd_analysis.weights import borrowed_state
from ssgd_analysis.weights.batchnorm import recalibrated_layers

Minibatches = Callable[[torch.Generator], Iterable[Batch]]


def train_curve(
    straight: WeightPath,
    problem: Problem,
    *,
    bends: int = 1,
    bezier: bool = True,
    epochs: int = 50,
    lr: float = 1e-3,
    minibatches: Minibatches | None = None,
    batch_statistics: bool = True,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[WeightPath, int]:
    """Minimise the mean loss over the curve, E L(φ(t)) with t uniform on [0, 1], by its bends.

    Adam, the learning rate falling to zero along a cosine. Each minibatch has a t of its own;
    those of an epoch are stratified: one in each of as many equal parts of [0, 1]. The gradient
    by a bend is the gradient by the weights times the bend's share in them. Dropout is off, as
    where the curve is evaluated.

    Args:
        straight: from :func:`line`; the bends start evenly on it.
        problem: over the path's model: the loss, and the minibatches unless those are given.
        bends: how many; one and ``bezier`` is the quadratic Bezier curve.
        bezier: a Bezier curve; else the polygon through the bends.
        epochs: passes over the minibatches.
        lr: the highest learning rate.
        minibatches: those of an epoch, given a generator; default: the problem's batches in a
            new order.
        batch_statistics: BatchNorm normalises by each minibatch; else by the statistics at t.
        seed: of orders and of t.
        progress: receives every epoch.

    Returns:
        The trained path, and how many gradients over a minibatch it took.

    Raises:
        InputError: no bends, no epochs, or no minibatch of two examples for BatchNorm.
        WorkError: the loss diverged.

    Reference:
        Garipov et al. 2018, arXiv 1802.10026, equation 2 and section 3.3 (Bezier curve and
        polygonal chain).
    """
    if bends < 1 or epochs < 1:
        raise InputError(f"bends {bends} and epochs {epochs} should be at least 1")
    draw = minibatches or (
        lambda random: (
            problem.batches[i]
            for i in torch.randperm(len(problem.batches), generator=random).tolist()
        )
    )
    knots = [
        {name: straight.at(k / (bends + 1))[name].clone() for name in problem.parameters}
        for k in range(1, bends + 1)
    ]
    path = WeightPath(straight.model, straight.start, straight.end, tuple(knots), bezier)
    optimizer = torch.optim.Adam([tensor for knot in knots for tensor in knot.values()], lr=lr)
    random = generator(seed, "curve", bends, bezier)
    parameters = list(problem.parameters.values())
    gradients = 0
    progress.start("training the curve", epochs)
    norms = recalibrated_layers(path.model) if batch_statistics else []
    with borrowed_state(path.model), problem.evaluating(), torch.enable_grad():
        for norm in norms:
            norm.training = True
        for epoch in range(epochs):
            # one example has no variance
            batches = [b for b in draw(random) if not norms or batching.examples(b) > 1]
            if not batches:
                raise InputError(
                    "BatchNorm needs minibatches of at least two examples: use a larger batch size"
                )
            parts = torch.randperm(len(batches), generator=random)
            times = (parts + torch.rand(len(batches), generator=random)) / len(batches)
            total = 0.0
            for step, (batch, t) in enumerate(zip(batches, times.tolist(), strict=True)):
                path.move_to(t)
                loss = problem.batch_loss(batch)
                found = torch.autograd.grad(loss, parameters, materialize_grads=True)
                for share, knot in zip(path.shares(t), knots, strict=True):
                    for tensor, gradient in zip(knot.values(), found, strict=True):
                        tensor.grad = share * gradient
                done = (epoch + step / len(batches)) / epochs
                for group in optimizer.param_groups:
                    group["lr"] = lr * (1 + math.cos(math.pi * done)) / 2
                optimizer.step()
                gradients += 1
                total += float(loss.detach()) / len(batches)
            if not math.isfinite(total):
                raise WorkError(f"the curve's loss diverged in epoch {epoch + 1}: use a smaller lr")
            progress.advance(1, f"mean loss {total:.3g}")
    for tensor in (tensor for knot in knots for tensor in knot.values()):
        tensor.grad = None
    return path, gradients
