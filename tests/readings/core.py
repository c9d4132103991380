"""SGD, S-SGD and weight-noise injection, read slowly."""

import torch
from torch import Tensor

from readings.base import Reading, Step, Weights, gradient, mean, moved, noise, sample_noises


def sgd(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w)."""
    return gradient(weights, inputs, targets)


def _no_noise(step: Step) -> bool:
    settings = step.settings
    return not settings.noise_start <= step.elapsed < settings.noise_stop


def _at(
    weights: Weights, inputs: Tensor, targets: Tensor, step: Step, draw: int, sign: int = 1
) -> Weights:
    """∇L_B(w ± n); or the mean over the examples, each at w ± its own n."""
    if step.settings.noise_per != "sample":
        return gradient(moved(weights, noise(weights, step, draw), sign), inputs, targets)
    total = [torch.zeros_like(weight) for weight in weights]
    for place, own in enumerate(sample_noises(weights, step, draw, len(inputs))):
        one = slice(place, place + 1)
        slope = gradient(moved(weights, own, sign), inputs[one], targets[one])
        total = moved(total, slope, 1 / len(inputs))
    return total


def s_sgd(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """½ [∇L_B(w + n) + ∇L_B(w − n)], the mean over the pairs.

    With halves each point sees other examples of B, and all examples weigh the same.
    """
    if _no_noise(step):
        return gradient(weights, inputs, targets)
    pairs = step.settings.pairs
    points = [(draw, sign) for draw in range(pairs) for sign in (1, -1)]
    begin = 0
    total = [torch.zeros_like(weight) for weight in weights]
    for number, (draw, sign) in enumerate(points):
        part, share = slice(None), 1 / len(points)
        if step.settings.minibatch == "halves":
            size = len(inputs) // len(points) + (number < len(inputs) % len(points))
            part, share = slice(begin, begin + size), size / len(inputs)
            begin += size
        total = moved(total, _at(weights, inputs[part], targets[part], step, draw, sign), share)
    return total


def wni(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w + n)."""
    if _no_noise(step):
        return gradient(weights, inputs, targets)
    return _at(weights, inputs, targets, step, 0)


def wni_2(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """½ [∇L_B(w + n) + ∇L_B(w + n′)], n and n′ independent."""
    if _no_noise(step):
        return gradient(weights, inputs, targets)
    return mean(*(_at(weights, inputs, targets, step, draw) for draw in (0, 1)))


NOISY = [
    {"noise_relative_to": "none", "noise_scale": 0.03},
    {"noise_schedule": "linear", "noise_end": 3.0},
    {"noise_per": "layer"},
    {"noise_per": "sample"},
    {"noise_stop": 0.3},
]

READINGS = {
    "sgd": Reading(sgd, passes=1, zero={}),
    "s-sgd": Reading(
        s_sgd,
        passes=2,
        zero={"noise_scale": 0.0},
        random=True,
        variants=[
            {"minibatch": "halves"},
            {"noise_scale": 0.5},
            {"noise_law": "gaussian", "noise_relative_to": "layer"},
            {"noise_law": "sphere"},
            {"noise_law": "sphere", "noise_relative_to": "layer"},
            {"noise_law": "uniform", "noise_relative_to": "weight"},
            {"noise_law": "laplace", "noise_relative_to": "layer"},
            {"noise_schedule": "sqrt", "noise_end": 0.5},
            {"noise_schedule": "lr"},
            {"noise_schedule": "linear", "noise_end": 0.5, "noise_start": 0.1, "noise_stop": 0.4},
            {"pairs": 3},
            {"noise_per": "layer", "pairs": 2},
            {"noise_per": "sample"},
            {"noise_per": "sample", "noise_law": "gaussian", "noise_scale": 0.3, "pairs": 2},
            {"noise_per": "sample", "minibatch": "halves"},
        ],
    ),
    "wni": Reading(wni, passes=1, zero={"noise_scale": 0.0}, random=True, variants=NOISY),
    "wni-2": Reading(
        wni_2,
        passes=2,
        zero={"noise_scale": 0.0},
        random=True,
        variants=[{"noise_schedule": "cosine"}, {"noise_per": "sample"}, {"noise_per": "layer"}],
    ),
}
