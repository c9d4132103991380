"""The gradient of every example, and what metrics ask of them: numbers, not the gradients.

An example's gradient is that of its own loss, the mean over its own terms. Examples count in all
means as they count in the loss: by the weights of their terms (class weights, labels that count).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vmap

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.curvature.products.products import differentiable
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import flattened

CHUNK_BYTES = 1 << 27  # of gradients at once
CHUNK = 64  # examples at once, at most: their activations are held too


@dataclass(frozen=True)
class ExampleGradients:
    """Means over the examples of each batch; g_i is an example's gradient, ḡ the mean of all.

    Args:
        squares: mean ‖g_i‖² of each batch.
        deviations: mean ‖g_i − ḡ‖² of each batch.
        inner: mean ⟨g_i, ḡ⟩ of each batch.
        effective: (Σ w_i)² / Σ w_i² of the examples' weights: their number where all are equal.
    """

    squares: list[float]
    deviations: list[float]
    inner: list[float]
    effective: float


Rows = Callable[[Problem, Batch], Iterator[Tensor]]


def example_gradients(context: MetricContext) -> ExampleGradients:
    """Made once a context; at the work of one gradient of all examples beside ḡ.

    Examples go through ``vmap`` in chunks; a model or loss that it refuses, or gets wrong, is
    differentiated one example at a time.

    Raises:
        InputError: the mean of the examples' gradients is not the gradient of the loss.
        WorkError: the gradient is not finite.
    """
    found = context.cached("example gradients", lambda: _tried(context))
    if isinstance(found, InputError):
        raise InputError(str(found)) from found
    return found


def _tried(context: MetricContext) -> ExampleGradients | InputError:
    """The refusal is cached, too: it may cost as much as the gradients."""
    try:
        return _measured(context)
    except InputError as error:
        return error


def _measured(context: MetricContext) -> ExampleGradients:
    mean = flattened(context.clean_gradient)
    if not bool(mean.isfinite().all()):
        raise WorkError("the gradient is not finite at these weights")
    for rows in (_together, _one_by_one):
        if rows is _one_by_one and not context.divisible:  # a long way to the same refusal
            break
        try:
            found, away = _summed(context.problem, mean, rows)
        except Exception as error:  # under vmap a user's model may raise anything
            if rows is _together:
                continue
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"the gradients of single examples can't be computed: {error}"
            ) from error
        context.pay(gradients=1)
        size = math.sqrt(context.problem.mean(found.squares))
        # rounding is some 10 epsilons of the gradients' size: far below
        if away <= 3 * torch.finfo(mean.dtype).eps ** 0.5 * size:
            return found
    raise InputError(
        "the loss of a batch is not the mean of its examples' losses (padding, weights, or examples"
        " that interact), so the metric's gradients of single examples do not exist"
    )


def _summed(problem: Problem, mean: Tensor, rows: Rows) -> tuple[ExampleGradients, float]:
    """The numbers, and ‖mean of g_i − ḡ‖, which should be rounding."""
    lists: tuple[list[float], list[float], list[float]] = ([], [], [])
    away, squares = torch.zeros_like(mean), 0.0
    with differentiable(problem):
        for index, (batch, share) in enumerate(zip(problem.batches, problem.shares, strict=True)):
            weights = problem.example_weights(index)
            squares += share**2 * float(weights.square().sum())
            sums = torch.zeros(3, dtype=torch.float64, device=mean.device)
            start = 0
            for gradients in rows(problem, batch):
                part = weights[start : start + len(gradients)]
                start += len(gradients)
                # an example without a label that counts has no loss: it weighs nothing
                gradients = torch.where(part[:, None] > 0, gradients, 0)
                deviations = gradients - mean
                away.add_(part.to(mean.dtype) @ deviations, alpha=share)
                sums += torch.stack(
                    [
                        part @ gradients.square().sum(dim=1, dtype=torch.float64),
                        part @ deviations.square().sum(dim=1, dtype=torch.float64),
                        part @ (gradients @ mean).double(),
                    ]
                )
            for values, value in zip(lists, sums.tolist(), strict=True):
                values.append(value)
    return ExampleGradients(*lists, effective=1 / squares), float(away.norm())


def _together(problem: Problem, batch: Batch) -> Iterator[Tensor]:
    """Gradients of a chunk of examples at a time, shape (chunk, P)."""
    weights = [parameter.detach() for parameter in problem.parameters.values()]
    itemsize = max(weight.element_size() for weight in weights)
    most = max(1, min(CHUNK, CHUNK_BYTES // (problem.n_parameters * itemsize)))
    count = problem.examples(batch)
    # tensors of another length (a shared mask) belong to every example
    own = [t.ndim > 0 and len(t) == count for t in batching.tensors(batch)]

    def loss(weights: Sequence[Tensor], *tensors: Tensor) -> Tensor:
        single = [t[None] if mine else t for t, mine in zip(tensors, own, strict=True)]
        return problem.loss_at(weights, batching.mapped(batch, single))

    axes = (None, *[0 if mine else None for mine in own])
    for piece in batching.pieces(batch, most, count):
        parts = vmap(grad(loss), in_dims=axes)(weights, *batching.tensors(piece))
        rows = [part.detach().reshape(len(part), -1) for part in parts]
        yield torch.cat(rows, dim=1)


def _one_by_one(problem: Problem, batch: Batch) -> Iterator[Tensor]:
    """The gradient of one example at a time, shape (1, P)."""
    parameters = list(problem.parameters.values())
    for piece in batching.pieces(batch, 1, problem.examples(batch)):
        loss = problem.batch_loss(piece)
        yield flattened(torch.autograd.grad(loss, parameters, materialize_grads=True))[None]
