"""How far the right class's output stands above the others'."""

import dataclasses

import torch
from torch import Tensor

from ssgd_analysis.batch import pair
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.problem.loss import accuracy, labelled
from ssgd_analysis.problem.loss_terms import LossTerms

QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@metric(
    "mean margin of the right class's output, in units of the outputs' spread",
    invariant_to=("layer", "neuron", "batchnorm", "permutation", "folding", "logit"),
    flatter=None,
    needs=("class labels", "a loss of (outputs, targets)"),
)
def margin(context: MetricContext, *, normalise: str = "logits") -> Measurement:
    """Mean over examples of (f_y − max over j ≠ y of f_j) / s, the output margin.

    With ``logits``, s is the root mean square over all examples of the distance of the outputs
    from their mean over classes, so that scaling the logits changes nothing. A property of the
    function, not of its parametrisation. It describes the fit, not the geometry: it has no
    direction that is flatter.

    Args:
        context: the problem.
        normalise: ``logits``, or ``none`` for s = 1.

    Returns:
        A pure number (or output units); the error is that of sampling the examples, that of s
        included to first order. ``details``: ``quantiles`` of the distribution of margins, the
        ``median`` one, the share of ``wrong`` examples (margin below zero), and ``scale``, s.

    Raises:
        InputError: targets that are no class labels, labels out of range, a loss that takes the
            model, or another normalisation.
        WorkError: outputs that are not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, y, model = torch.eye(4), torch.arange(4) % 2, torch.nn.Linear(4, 2, bias=False)
        >>> _ = torch.nn.init.eye_(model.weight)
        >>> problem = Problem(model, torch.nn.CrossEntropyLoss(), [(x, y)])
        >>> round(flatness.margin(problem).value, 3)
        1.0

    Reference:
        Jiang et al. 2019 (arXiv 1810.00113) for margin distributions.
    """
    if normalise not in ("logits", "none"):
        raise InputError(f"normalise '{normalise}' should be logits or none")
    problem = context.problem
    if problem.takes_model:
        raise InputError(
            "the margin needs the model's outputs: give a loss whose parameters are"
            " (outputs, targets)"
        )
    with problem.evaluating(), torch.no_grad():
        found = [
            _margins(problem.outputs(inputs), targets, problem.batch_terms(index))
            for index, (inputs, targets) in enumerate(map(pair, problem.batches))
        ]
    shares = problem.label_shares
    assert shares is not None  # of class labels
    context.pay(forwards=1)
    margins = [float(values.mean()) if len(values) else 0.0 for values, _ in found]
    squares = [square for _, square in found]
    every = torch.cat([values.reshape(-1) for values, _ in found])
    scale = problem.label_mean(squares) ** 0.5 if normalise == "logits" else 1.0
    if not torch.isfinite(every).all():
        raise WorkError("the outputs are not finite")
    if scale == 0:
        raise InputError("the outputs of all classes are equal: there is no margin")
    mean = problem.label_mean(margins) / scale
    # each batch's part in the ratio of means: m/s − value (s_b²/s² − 1)/2, of mean m/s
    bends = [mean * (q / scale**2 - 1) / 2 if normalise == "logits" else 0.0 for q in squares]
    values = [value / scale - bend for value, bend in zip(margins, bends, strict=True)]
    levels = torch.tensor(QUANTILES, dtype=every.dtype, device=every.device)
    quantiles = (_quantiles(every, levels) / scale).tolist()
    details = {
        "quantiles": dict(zip(map(str, QUANTILES), quantiles, strict=True)),
        "median": quantiles[QUANTILES.index(0.5)],
        "wrong": float((every < 0).double().mean()),
        "scale": scale,
    }
    measured = of_batches(context, values, {"normalise": normalise}, shares)
    return dataclasses.replace(measured, details=details)


def _margins(outputs: Tensor, targets: Tensor, terms: LossTerms | None) -> tuple[Tensor, float]:
    """Margins of one batch in float64, of the labels that count; and its mean square deviation.

    The deviation is that of the outputs from their mean over classes, summed over classes.
    """
    if accuracy(outputs, targets) is None:
        raise InputError("the targets are not class labels, so there is no margin")
    counts = labelled(outputs, targets, terms)
    ignored = -1 if terms is None or terms.ignored is None else terms.ignored
    if bool((~counts & (targets != ignored)).any()):
        raise InputError(f"labels should be from 0 to {outputs.shape[1] - 1}")
    outputs, targets = outputs.double(), torch.where(counts, targets, 0).long()
    right = outputs.gather(1, targets.unsqueeze(1)).squeeze(1)
    others = outputs.scatter(1, targets.unsqueeze(1), -torch.inf).amax(dim=1)
    away = (outputs - outputs.mean(dim=1, keepdim=True)).square().sum(dim=1)[counts]
    return (right - others)[counts], float(away.mean()) if len(away) else 0.0


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """Quantiles by linear interpolation; ``torch.quantile`` refuses more than 16 million values."""
    ordered = values.sort().values
    ranks = levels * (len(ordered) - 1)
    low = ranks.floor().long()
    high = ranks.ceil().long()
    return ordered[low] + (ranks - low) * (ordered[high] - ordered[low])
