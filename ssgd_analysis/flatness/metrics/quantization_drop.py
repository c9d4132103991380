"""Accuracy lost when the weights are rounded to few bits."""

import dataclasses

import torch
from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.weights import PLAIN, Filters


@metric(
    "accuracy lost by rounding the weights to few bits, filter by filter",
    invariant_to=("layer", "batchnorm", "permutation", "folding", "logit"),
    radius="bits",
    radii=(8, 7, 6, 5, 4, 3, 2),
)
def quantization_drop(context: MetricContext, *, bits: int = 4) -> Measurement:
    """Accuracy at w − accuracy at Q(w), Q rounding each filter to k bits, symmetric about zero.

    In a filter whose largest |weight| is m, weights become the nearest multiple of
    m/(2^(k−1) − 1): 2^k − 1 levels. Biases and normalisation (parameters with one axis) stay,
    as is usual. One perturbation, not a mean over noise. Where the targets are no class labels
    the rise of the loss takes its place; ``settings["of"]`` says which.

    Args:
        context: the problem.
        bits: k, from 2 to 16.

    Returns:
        A share of the examples (or nats), negative where rounding helps; the error is that of
        sampling the examples. ``details`` has the rise of the loss, and the rounding's size
        relative to the weights it moves, either way.

    Raises:
        InputError: bits out of range.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, y, model = torch.eye(4), torch.arange(4) % 2, torch.nn.Linear(4, 2, bias=False)
        >>> _ = torch.nn.init.eye_(model.weight)
        >>> problem = Problem(model, torch.nn.CrossEntropyLoss(), [(x, y)])
        >>> round(flatness.quantization_drop(problem, bits=2).value, 3)
        0.0

    Reference:
        Krishnamoorthi 2018 (arXiv 1806.08342), section 2, symmetric per-channel rounding.
    """
    bits = int(bits)  # a curve over radii may give a float
    if not 2 <= bits <= 16:
        raise InputError(f"bits {bits} should be from 2 to 16")
    losses, rights = context.clean_scores
    with context.moved() as clean:
        rounded = [
            rounded_to(weight, bits, filters) if weight.ndim > 1 else weight
            for weight, filters in zip(clean, context.filters, strict=True)
        ]
        for parameter, value in zip(context.parameters, rounded, strict=True):
            parameter.copy_(value)
        after_losses, after_rights = context.scores()
        matrices = [(q, w) for q, w in zip(rounded, clean, strict=True) if w.ndim > 1]
        moved = sum(float((q - w).double().square().sum()) for q, w in matrices)
        size = sum(float(w.double().square().sum()) for _, w in matrices)
    rises = [after - before for after, before in zip(after_losses, losses, strict=True)]
    values, of, shares = rises, "loss", context.problem.shares
    if rights is not None and after_rights is not None:
        values = [before - after for before, after in zip(rights, after_rights, strict=True)]
        of, shares = "accuracy", context.problem.label_shares or shares
    details = {
        "loss_rise": context.problem.mean(rises),
        "relative_size": (moved / size) ** 0.5 if size else 0.0,
    }
    found = of_batches(context, values, {"bits": bits, "of": of}, shares)
    return dataclasses.replace(found, details=details)


def rounded_to(weight: Tensor, bits: int, filters: Filters = PLAIN) -> Tensor:
    """A weight with each filter rounded to the nearest of 2^bits − 1 levels about zero.

    Args:
        weight: of two axes or more.
        bits: at least 2.
        filters: how it divides into filters; constants stay.
    """
    largest = filters.reduced(filters.moving(weight).abs(), torch.amax)
    step = largest / (2 ** (bits - 1) - 1)
    step = torch.where(step > 0, step, 1)
    rounded = (weight / step).round() * step
    if filters.constant is not None:
        rounded[filters.constant] = weight[filters.constant]
    return rounded
